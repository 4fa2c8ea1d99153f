"""What to ask where answers are most in doubt: each example counts by how likely what the model says of it is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.prediction import Prediction
from slots.head.recalling.recall import Recall, raw_units
from slots.rehearsal.group_purity import group_radius
from slots.rehearsal.recollection import learn_recall
from slots.rounding import full_product
from slots.shapes import Ids
from slots.update.snapshot import Snapshot

WIDEST = 0.5
"""Largest radius of a group, radians (29 degrees)."""

_SAMPLED = 1000  # remembered and new examples that set the radius


@dataclass(frozen=True)
class Doubts:
    """What is in doubt, and in which groups it is asked about.

    Parameters
    ----------
    queries : int64 array of shape (query,)
        Rows of the new data, those first that settle most doubt.
    groups : tuple of int64 arrays
        Rows that each query stands for, itself first; no row is in two groups.
    next_gain : int
        Rows that one more query would stand for.
    radius : float
        Angular radius of a group, before any whitening, radians.
    purity : float or None
        Share of a group that is expected to have its query's label; None where it was not measured.
    """

    queries: Ids
    groups: tuple[Ids, ...]
    next_gain: int
    radius: float
    purity: float | None


@dataclass(frozen=True)
class Limits:
    """What `slots.update.propose` was asked for, its ``stop_below`` by the name ``least``."""

    budget: int | None
    least: int
    purity: float
    radius: float | None
    max_candidates: int


def recall_of(snapshot: Snapshot) -> Recall | None:
    """What guesses by all that is remembered: the model's own, else one that is learned here; None without memory."""
    recall = snapshot.head.recall
    if recall is None and snapshot.rehearsal is not None:
        found = learn_recall(snapshot.rehearsal, snapshot.featurizer.whitening, snapshot.head.caps())
        recall = None if found is None else found.recall
    return None if recall is None else recall.to(snapshot.device)


@torch.no_grad()
def ask_in_doubt(
    snapshot: Snapshot,
    source: FeatureSource,
    prediction: Prediction,
    recall: Recall,
    limits: Limits,
) -> Doubts:
    """Greedy coverage of doubt.

    Parameters
    ----------
    snapshot : Snapshot
        Of the model.
    source : FeatureSource
        The new data.
    prediction : Prediction
        The answers to it.
    recall : Recall
        As `recall_of` gives it.
    limits : Limits
        Of the queries.

    Returns
    -------
    Doubts

    Notes
    -----
    Ours. An unmatched example is in doubt as far as the lead of its guess falls short of a full vote; a matched one
    where what is remembered contradicts the slot, as far as that leads. A group holds what lies within a cap whose
    radius is measured on what is remembered, before any whitening: what is new may differ in what a whitening makes
    small. And only what has the same guess is in one group: of a new domain the measured radius knows nothing.
    Uncertainty alone asks about one border again and again, coverage alone about what is known well enough.
    """
    labels, lead = prediction.labels.copy(), np.ones(len(prediction))
    raw = [recall.examples.new_zeros(0, recall.examples.shape[1])]
    for rows in source.blocks():
        features = source(rows)
        best, leads = recall.ranked(features, prediction.labels[rows], recall.labels)
        labels[rows], lead[rows] = best[:, 0].cpu().numpy(), leads.cpu().numpy()
        raw.append(raw_units(features[:, 0], recall.back))
    unit = torch.cat(raw).float()
    usable = (unit != 0).any(1).cpu().numpy()
    doubt = np.where(prediction.matched, np.where(labels != prediction.labels, lead, 0.0), 1 - lead) * usable
    open_rows = np.flatnonzero(doubt > 0)
    radius, measured = limits.radius, None
    if radius is None:
        there = unit[torch.from_numpy(np.flatnonzero(usable)).to(unit.device)]
        radius, measured = _radius(snapshot, recall, there, limits.purity)
    tried = np.arange(0, len(open_rows), max(1, -(-len(open_rows) // limits.max_candidates)))
    some = unit[torch.from_numpy(open_rows).to(unit.device)]
    inside = _inside(some, tried, math.cos(radius), prediction.matched[open_rows], labels[open_rows])
    places, groups, next_gain = weighted_groups(
        doubt[open_rows], tried, inside, count=limits.budget, least=limits.least
    )
    return Doubts(open_rows[places], tuple(open_rows[group] for group in groups), next_gain, radius, measured)


def weighted_groups(
    doubt: npt.NDArray[np.float64],
    tried: Ids,
    inside: npt.NDArray[np.bool_],
    *,
    count: int | None,
    least: int = 1,
) -> tuple[Ids, list[Ids], int]:
    """Greedy maximum coverage with weights.

    Parameters
    ----------
    doubt : float64 array of shape (example,)
        Weights, > 0.
    tried : int64 array of shape (candidate,)
        Places of the candidates among the examples.
    inside : bool array of shape (candidate, example)
        Who lies in whose group; a candidate lies in its own.
    count : int or None
        Most picks; None for as many as there are.
    least : int, default 1
        A pick must stand for so many that none before it does.

    Returns
    -------
    places : int64 array of shape (pick,)
        The picks, the heaviest first; ties to the lowest place.
    groups : list of int64 arrays
        What each stands for, itself first; nothing that is in a group is asked about.
    next_gain : int
        Examples that the next pick would stand for.

    Examples
    --------
    >>> inside = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    >>> places, groups, _ = weighted_groups(np.array([0.2, 0.3, 0.9]), np.arange(3), inside, count=2)
    >>> places.tolist(), [group.tolist() for group in groups]
    ([2, 0], [[2], [0, 1]])
    """
    left, free = doubt.copy(), np.ones(len(doubt), bool)
    gain = inside @ left if len(tried) else np.zeros(0)
    picks: list[int] = []
    groups: list[Ids] = []
    while True:
        place = int(gain.argmax()) if len(gain) else -1
        mine = inside[place] & free if place >= 0 else np.zeros(0, bool)
        if place < 0 or gain[place] <= 1e-12 or mine.sum() < least or (count is not None and len(picks) >= count):
            return np.array(picks, np.int64), groups, int(mine.sum())
        members, middle = np.flatnonzero(mine), tried[place]
        groups.append(np.concatenate([[middle], members[members != middle]]))
        picks.append(int(middle))
        gain = gain - inside[:, members] @ left[members]
        free[members] = False
        gain[~free[tried]] = 0.0


def _inside(
    unit: Tensor, tried: Ids, cosine: float, matched: npt.NDArray[np.bool_], guesses: Ids
) -> npt.NDArray[np.bool_]:
    """Which examples each candidate stands for: near ones of its own kind and guess; of two guesses one is wrong."""
    found: Bool[Tensor, "candidate example"] = (
        full_product(unit[torch.from_numpy(tried).to(unit.device)], unit.T) > cosine
    )
    inside = found.cpu().numpy() & (matched[tried][:, None] == matched[None])
    inside &= guesses[tried][:, None] == guesses[None]
    inside[np.arange(len(tried)), tried] = True
    return np.asarray(inside)


def _radius(snapshot: Snapshot, recall: Recall, unit: Tensor, purity: float) -> tuple[float, float | None]:
    """How wide groups may be, by what is remembered."""
    memory = snapshot.rehearsal
    if memory is None or len(memory) != len(recall.examples):
        return WIDEST / 10, None
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(len(memory)))[:_SAMPLED]
    fresh = unit[:: max(1, -(-len(unit) // _SAMPLED))][:, None].cpu()
    known = recall.examples.cpu()[drawn].float()
    found = group_radius(known, memory.labels[drawn], fresh, purity=purity, most=WIDEST)
    return found.radius, found.purity
