"""An update that remembers: what is told joins the memory, which guesses, and new slots match what is beyond doubt.

For a model that goes on for months with a few labels a day. Slots made of five labels match far more than five labels
can vouch for, most of all in a domain of which nothing is known yet. So here a new slot reaches half as far as the
nearest example that is not surely of its label; all else stays unmatched, is guessed by all that was ever told, and can
be asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slots.cover.bits import CoverBlock, pack_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.features.exemplars import support_features, thumbnails
from slots.features.source import FeatureSource, unit_features
from slots.head.similarities import feature_lengths, normalize
from slots.head.slot_table import N_EXEMPLARS
from slots.labels import LabelNames
from slots.rehearsal.recollection import Recollection, learn_recall
from slots.rounding import full_product, strictly_above
from slots.shapes import Ids
from slots.storage.generations import Generation
from slots.update.planned import NewSlots, PlannedUpdate
from slots.update.queries import Proposal
from slots.update.report import UpdateReport, figures
from slots.update.snapshot import Snapshot

SURE = 0.5
"""Lead of a guess (in votes) from which an example counts as surely of its label."""

REACH = 0.5
"""How far a new slot reaches, as a share of the way to the nearest example that is not surely of its label."""

_GAIN = 3  # examples that a slot without a label of its own must match
_CANDIDATES = 2000
_TILE = 1 << 24  # cosines held at once: 64 MB


def plan_recalled(
    snapshot: Snapshot, source: FeatureSource, given: Ids, known: LabelNames, done: UpdateReport
) -> PlannedUpdate:
    """Plan such an update.

    Parameters
    ----------
    snapshot : Snapshot
        Of a model with a rehearsal memory.
    source : FeatureSource
        All of the new data.
    given : int64 array of shape (example,)
        Its labels, -1 where unknown; at least one is known. Those of matched examples are remembered, too.
    known : LabelNames
        All labels of the updated model.
    done : UpdateReport
        What is known of the update so far; its proposal says which of the new data are unmatched.

    Returns
    -------
    PlannedUpdate
        With no new slots where all that is told was matched; the memory learns it all the same.
    """
    proposal = done.proposal
    told = told_examples(source, given, np.flatnonzero(given >= 0))
    assert snapshot.rehearsal is not None
    memory = snapshot.rehearsal.joined(*told)
    found = learn_recall(memory, snapshot.featurizer.whitening, snapshot.head.caps())
    sure = _sure(snapshot, source, given, proposal, found)
    drawn = _drawn(sure, memory.features.float(), memory.labels)
    n, first, number = len(drawn.places), snapshot.head.n_slots, snapshot.generation + 1
    done = replace(
        done,
        generation=number,
        labels_used=len(told[1]),
        slots_added=n,
        slots=np.arange(first, first + n),
        sources=np.where(sure.told[drawn.places], proposal.unmatched[drawn.places], -1),
        verdict="" if found is None else str(found),
    )
    exemplars = torch.from_numpy(np.where(drawn.members >= 0, proposal.unmatched[drawn.members], -1))
    exemplars = exemplars.to(snapshot.device)
    axes = sure.unit[torch.from_numpy(drawn.places).to(sure.unit.device)]
    slots = NewSlots(
        weights=axes,
        centres=axes,
        labels=torch.from_numpy(sure.labels[drawn.places]).to(snapshot.device),
        precision_thresholds=drawn.limits,
        support_thresholds=drawn.limits,
        pooled=torch.zeros(n, dtype=torch.bool, device=snapshot.device),
        hits=torch.from_numpy(drawn.gains).to(snapshot.device),
        exemplars=exemplars,
        exemplar_features=support_features(source, normalize(axes), exemplars),
        exemplar_images=thumbnails(source.x, exemplars.cpu().numpy()) if snapshot.has_images else None,
        told=told,
        known=known,
        line=Generation(number, "update", first + n, figures(done)),
        recall=None if found is None else found.recall,
    )
    return PlannedUpdate(slots, done)


def told_examples(source: FeatureSource, given: Ids, rows: Ids) -> tuple[Tensor, Tensor, Tensor]:
    """What the memory keeps of some rows: unit features by the first view, labels, and lengths of the features."""
    some = source.take(rows, keep=False)
    lengths = [feature_lengths(some(block)[:, 0]) for block in some.blocks()]
    return (
        unit_features(some),
        torch.from_numpy(given[rows]),
        torch.cat([torch.zeros(0), *(it.cpu() for it in lengths)]),
    )


@dataclass(frozen=True)
class _Sure:
    """The unmatched: unit features, most likely labels, which are beyond doubt, and which were told."""

    unit: Tensor
    labels: Ids
    sure: np.ndarray
    told: np.ndarray


@dataclass(frozen=True)
class _Drawn:
    """New slots: their seeds among the unmatched, thresholds, how many each matches first, and the nearest of these."""

    places: Ids
    limits: Tensor
    gains: Ids
    members: Ids


def _sure(
    snapshot: Snapshot, source: FeatureSource, given: Ids, proposal: Proposal, found: Recollection | None
) -> _Sure:
    """What each unmatched example most likely is, by all that is remembered with what was just told."""
    unmatched = proposal.unmatched
    fresh = source.take(unmatched)
    unit = unit_features(fresh)
    labels, lead = proposal.prediction.labels[unmatched], np.zeros(len(unmatched))
    if found is not None and len(unmatched):
        recall = found.recall.to(snapshot.device)
        for rows in fresh.blocks():
            best, leads = recall.ranked(fresh(rows), labels[rows], recall.labels)
            labels[rows], lead[rows] = best[:, 0].cpu().numpy(), leads.cpu().numpy()
    told = given[unmatched] >= 0
    labels = np.where(told, given[unmatched], labels)
    usable = (unit != 0).any(1).cpu().numpy()
    return _Sure(unit, labels, (told | (lead >= SURE)) & usable, told & usable)


def _drawn(of: _Sure, memory: Tensor, memory_labels: Tensor) -> _Drawn:
    """Slots around told and sure examples, by greedy cover of what is sure; each told one gets or lies in one."""
    device = of.unit.device
    sure = np.flatnonzero(of.sure & ~of.told)
    tried = np.concatenate([np.flatnonzero(of.told), sure[:: max(1, -(-len(sure) // _CANDIDATES))]])
    if len(tried) == 0:
        none = np.zeros(0, np.int64)
        return _Drawn(none, torch.zeros(0, device=device), none, np.zeros((0, N_EXEMPLARS), np.int64))
    labels, every = torch.from_numpy(of.labels).to(device), torch.from_numpy(of.sure).to(device)
    memory, memory_labels = normalize(memory.to(device)), memory_labels.to(device)
    limits, words, inside_of = [], [], []
    for part in np.array_split(tried, max(1, -(-len(tried) * len(of.unit) // _TILE))):
        axes, mine = of.unit[torch.from_numpy(part).to(device)], labels[torch.from_numpy(part).to(device)]
        scores, remembered = full_product(axes, of.unit.T), full_product(axes, memory.T)
        own = every[None] & (labels[None] == mine[:, None])
        foreign = torch.maximum(
            scores.masked_fill(own, -1.0).amax(1),
            remembered.masked_fill(memory_labels[None] == mine[:, None], -1.0).amax(1),
        )
        angle = REACH * foreign.double().clamp(-1, 1).arccos()
        limit = strictly_above(angle.cos())
        inside = own & (scores > limit[:, None])
        inside[torch.arange(len(part)), torch.from_numpy(part)] = True
        limits.append(limit.double())
        words.append(pack_bits(inside).cpu())
        inside_of.append(inside.cpu())
    covers = torch.cat(inside_of).numpy()
    block = CoverBlock(0, torch.arange(len(tried)), torch.arange(covers.shape[1]), torch.cat(words))
    picks = greedy_set_cover_packed([block], min_gain=_GAIN).numpy()
    alone = np.flatnonzero(of.told[tried] & ~covers[picks][:, tried].any(0))
    picks = np.concatenate([picks, alone]).astype(np.int64)
    places = tried[picks]
    return _Drawn(
        places,
        torch.cat(limits)[torch.from_numpy(picks).to(device)].float(),
        covers[picks].sum(1).astype(np.int64),
        _nearest(of.unit, places, covers[picks]),
    )


def _nearest(unit: Tensor, places: Ids, inside: np.ndarray) -> Ids:
    """The seed and the nearest others that each slot matches; -1 pads."""
    scores = full_product(unit[torch.from_numpy(places).to(unit.device)], unit.T).cpu().numpy()
    scores = np.where(inside, scores, -2.0)
    scores[np.arange(len(places)), places] = 3.0
    order = np.argsort(-scores, axis=1, kind="stable")[:, :N_EXEMPLARS]
    found = np.where(np.take_along_axis(scores, order, 1) > -2, order, -1)
    return np.pad(found, ((0, 0), (0, N_EXEMPLARS - found.shape[1])), constant_values=-1).astype(np.int64)
