"""Slots for what training left unmatched: examples themselves, the fewest that cover it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.cover.greedy import greedy_set_cover
from slots.cover.refined import refined_set_cover
from slots.distributed import Ranks
from slots.features.exemplars import nearest_members
from slots.features.source import FeatureSource, unit_features
from slots.head.caps import SlotCaps
from slots.head.decision import CandidatePairs, candidate_pairs, matching_pairs
from slots.head.exact_thresholds import PrecisionAccumulator
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.slot_table import N_EXEMPLARS
from slots.progress import Progress
from slots.rounding import FLOAT32_GAP, strictly_below

_CHUNK = 2048
"""Candidates whose thresholds are found in one pass over the data; it bounds the memory."""


@dataclass(frozen=True)
class _Candidates:
    """Unmatched examples as slots to be: ids, unit features, labels and precision thresholds, one row each."""

    ids: npt.NDArray[np.int64]
    unit: Tensor
    labels: Tensor
    thresholds: Tensor


@torch.no_grad()
def cover_unmatched(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    *,
    matched: npt.NDArray[np.bool_],
    among: npt.NDArray[np.int64] | None = None,
    min_gain: int,
    max_candidates: int,
    slack: float,
    progress: Progress,
    refine_s: float = 1.0,
) -> tuple[int, npt.NDArray[np.int64]]:
    """Add the fewest examples as slots that cover the unmatched ones, each at precision 1 on all that are looked at.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Gets the new slots, behind the others, outside the pooled score.
    y : int64 array of shape (example,)
        Labels of the training data, >= 0.
    matched : bool array of shape (example,)
        Updated in place: true for what the new slots match.
    among : int64 array, optional
        Examples that are looked at, sorted. Default: all.
    min_gain : int
        Unmatched examples of its label that a new slot must match, itself included (count, >= 1).
    max_candidates : int
        Above this many unmatched, every n-th is tried.
    slack : float
        Radians by which a new slot reaches beyond the examples it was added for.
    progress : callable
        ``progress(step, share)``, told the progress.
    refine_s : float, default 1.0
        Seconds of search a class for a smaller cover; used when ``min_gain`` is 1.

    Returns
    -------
    n_added : int
    contradictions : int64 array
        Candidates that do not even match themselves: the same features under another label, or zero.
    """
    among = np.arange(len(y)) if among is None else among
    open_ids = among[~matched[among]]
    if len(open_ids) == 0:
        return 0, open_ids
    step = -(-len(open_ids) // max(1, max_candidates))
    tried = _candidates(source, head, y, open_ids[::step], among=among, progress=progress)
    pairs = _pairs(source, head, y, open_ids, tried, progress=progress)
    added = 0
    for label in np.unique(y[tried.ids]):
        added += _cover_label(
            head, tried, pairs, open_ids, matched=matched, settings=(int(label), min_gain, slack, refine_s),
            ranks=source.ranks,
        )  # fmt: skip
    itself = np.searchsorted(open_ids, tried.ids)
    selfless = ~np.isin(np.arange(len(tried.ids)), pairs[0][pairs[1] == itself[pairs[0]]])
    return added, tried.ids[selfless]


def _candidates(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    *,
    among: npt.NDArray[np.int64],
    progress: Progress,
) -> _Candidates:
    """Candidates with exact precision thresholds over the examples ``among``."""
    device = source.featurizer.device
    targets = torch.from_numpy(y).to(device)
    unit = unit_features(source, ids)
    labels = targets[torch.from_numpy(ids).to(device)]
    parts = []
    for i in range(0, len(ids), _CHUNK):
        accumulator = PrecisionAccumulator(unit[i : i + _CHUNK], labels[i : i + _CHUNK])

        def work(rows: slice, before: int = i, into: PrecisionAccumulator = accumulator) -> tuple[()]:
            progress("candidates", (before + _CHUNK * rows.stop / len(among)) / (len(ids) + _CHUNK))
            part = rows if len(among) == len(y) else among[rows]
            of = targets[torch.as_tensor(part) if part is not rows else rows]
            into.update(source(part), of, first=rows.start)
            return ()

        source.each_block(len(among), work, columns=max(head.n_slots, min(_CHUNK, len(ids))))
        parts.append(accumulator.thresholds(source.ranks))
    return _Candidates(ids, unit, labels, torch.cat(parts))


def _best_scores(triples: CandidatePairs, example: Tensor, slot: Tensor, n_slots: int) -> Tensor:
    """Float32 score of the best view of some (example, slot) pairs, in order, each of which is among the triples."""
    keys, of_triple = example * n_slots + slot, triples.examples * n_slots + triples.slots
    place = torch.searchsorted(keys, of_triple).clamp(max=max(0, len(keys) - 1))
    among = (keys[place] == of_triple).nonzero()[:, 0] if len(keys) else place[:0]
    best = torch.full((len(keys),), -math.inf, dtype=torch.float64, device=keys.device)
    return best.scatter_reduce_(0, place[among], triples.weight_scores[among], "amax").float()


def _pairs(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    open_ids: npt.NDArray[np.int64],
    tried: _Candidates,
    *,
    progress: Progress,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Candidate, place among the unmatched, and score, for each pair of one label that matches by the exact rule."""
    caps = SlotCaps(
        weights=tried.unit,
        centres=tried.unit,
        precision=tried.thresholds,
        support=torch.full_like(tried.thresholds, -2.0),
        labels=tried.labels,
        generations=torch.zeros_like(tried.labels),
        pooled=torch.ones_like(tried.labels, dtype=torch.bool),
        beta=head.beta,
    )
    targets = torch.from_numpy(y[open_ids]).to(tried.labels.device)

    def work(rows: slice) -> tuple[Tensor, ...]:
        progress("cover", rows.stop / len(open_ids))
        features = source(open_ids[rows])
        triples = candidate_pairs(features, caps)
        example, candidate = matching_pairs(features, caps, candidates=triples)
        own = targets[rows][example] == tried.labels[candidate]
        example, candidate = example[own], candidate[own]
        return candidate, example + rows.start, _best_scores(triples, example, candidate, len(tried.ids))

    found = source.each_block(len(open_ids), work, columns=max(head.n_slots, len(tried.ids)))
    candidates, places, values = (torch.cat(column).cpu().numpy() for column in zip(*found, strict=True))
    return candidates, places, values


def _cover_label(
    head: IncrementalNeuralHashing,
    tried: _Candidates,
    pairs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]],
    open_ids: npt.NDArray[np.int64],
    *,
    matched: npt.NDArray[np.bool_],
    settings: tuple[int, int, float, float],
    ranks: Ranks,
) -> int:
    """Cover the unmatched examples of one label; returns the number of slots added."""
    label, min_gain, slack, refine_s = settings
    mine = np.flatnonzero(tried.labels.cpu().numpy() == label)
    here = np.isin(pairs[0], mine)
    candidate, place, score = (column[here] for column in pairs)
    if len(candidate) == 0:
        return 0
    places, column = np.unique(place, return_inverse=True)
    scores = np.full((len(mine), len(places)), -np.inf, np.float32)
    scores[np.searchsorted(mine, candidate), column] = score
    covers = torch.from_numpy(scores > -np.inf)
    if min_gain == 1:
        picked = ranks.from_first(lambda: refined_set_cover(covers, time_budget_s=refine_s))
    else:
        picked = greedy_set_cover(covers, min_gain=min_gain)
    chosen = picked.cpu().numpy()
    if len(chosen) == 0:
        return 0
    best, owner = scores[chosen].max(0), scores[chosen].argmax(0)
    inside = best > -np.inf
    reach = np.full(len(chosen), 1.0)
    np.minimum.at(reach, owner[inside], best[inside])
    radius = np.minimum(np.arccos(np.clip(reach - FLOAT32_GAP, -1, 1)) + slack, np.pi)
    rows = torch.from_numpy(mine[chosen]).to(tried.unit.device)
    head.add_slots(
        tried.unit[rows],
        tried.labels[rows],
        precision_thresholds=tried.thresholds[rows],
        support_thresholds=strictly_below(torch.from_numpy(np.cos(radius))),
        exemplars=_exemplars(tried.ids[mine[chosen]], best, owner, open_ids[places], inside),
        pooled=False,
    )
    head.hits[-len(chosen) :] = covers[picked].sum(1).to(head.hits.device)
    matched[open_ids[places[inside]]] = True
    return len(chosen)


def _exemplars(
    own: npt.NDArray[np.int64],
    best: npt.NDArray[np.float32],
    owner: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
) -> Tensor:
    """Exemplar ids of new slots: the example itself, then the nearest that it was added for; -1 pads."""
    others = np.where(inside & (ids != own[owner]), owner, -1)
    places = nearest_members(torch.from_numpy(best), torch.from_numpy(others), len(own), count=N_EXEMPLARS - 1).numpy()
    return torch.from_numpy(np.concatenate([own[:, None], np.where(places >= 0, ids[places], -1)], 1))
