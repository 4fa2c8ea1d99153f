"""New slots on given labels: seeds, the means of what is nearest to them, and the labels that the others take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.update.config import UpdateConfig
from slots.update.new_caps import Placed, find_voters, settle, thin_seeds
from slots.update.pseudo_labelled_slots import stand
from slots.update.queries import Proposal, unit_features
from slots.update.self_training import Outlook, look, spread
from slots.update.snapshot import Snapshot

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draft:
    """New slots before their refinement: where, of which label, and what of the unmatched teaches them.

    Parameters
    ----------
    placed : Placed
    labels : int64 tensor of shape (unmatched,)
        Of every unmatched example: given, taken or spread.
    sure : bool array of shape (unmatched,)
        Whose label may be learned from.
    clusters : int64 array
        Labels among the slots' that are clusters without a name.
    sources : int64 array of shape (slot,)
        Place of the given label that each slot rests on; -1 for none.
    """

    placed: Placed
    labels: Tensor
    sure: npt.NDArray[np.bool_]
    clusters: Ids
    sources: Ids


def seeded_draft(
    snapshot: Snapshot,
    source: FeatureSource,
    known: Ids,
    proposal: Proposal,
    *,
    first_free: int,
    config: UpdateConfig,
) -> Draft:
    """One slot a given label, and one a query without a label.

    Parameters
    ----------
    snapshot : Snapshot
    source : FeatureSource
        The unmatched examples.
    known : int64 array of shape (unmatched,)
        Their labels, -1 where unknown.
    proposal : Proposal
    first_free : int
        Label id of the first cluster.
    config : UpdateConfig
    """
    unit, device = unit_features(source), snapshot.device
    seeds, labels, clusters = _seeds(unit, known, proposal, first_free=first_free)
    places = torch.from_numpy(seeds).to(device)
    marks, of_slots = torch.from_numpy(known).to(device), torch.from_numpy(labels).to(device)
    every = np.ones(len(known), bool)
    nobody = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    if len(seeds) == 0:
        return Draft(Placed(places, unit[places], of_slots, nobody), marks, every, clusters, seeds)
    voters = find_voters(source, unit, marks, seeds=places, labels=of_slots, radius=proposal.radius)
    placed = settle(unit, marks, Placed(places, unit[places], of_slots, voters), moves=config.moves)
    taken = _taken_labels(snapshot.head, source, proposal, placed, marks)
    return Draft(placed, taken, every, clusters, np.where(np.isin(labels, clusters), -1, seeds))


def spread_draft(
    snapshot: Snapshot,
    source: FeatureSource,
    given: Ids,
    proposal: Proposal,
    *,
    config: UpdateConfig,
    outlook: Outlook | None,
    report: Progress,
) -> Draft:
    """Slots of all that the given labels reach.

    Parameters
    ----------
    snapshot : Snapshot
    source : FeatureSource
        All of the new data.
    given : int64 array of shape (example,)
        Its labels, -1 where unknown.
    proposal : Proposal
    config : UpdateConfig
        With ``spread``.
    outlook : Outlook or None
        Made here where there is none.
    report : callable
    """
    outlook = look(snapshot, source, proposal.prediction, report=report) if outlook is None else outlook
    found = stand(
        snapshot.head,
        outlook,
        spread(outlook, given, config=config.spread),
        unmatched=proposal.unmatched,
        known=given[proposal.unmatched],
        slots_per_label=config.slots_per_label,
        seed=config.seed,
    )
    labels = torch.from_numpy(found.labels).to(snapshot.device)
    return Draft(found.placed, labels, found.sure, np.zeros(0, np.int64), found.sources)


def _seeds(unit: Tensor, known: Ids, proposal: Proposal, *, first_free: int) -> tuple[Ids, Ids, Ids]:
    """Places among the unmatched that seed a slot, their labels, and the ids of the clusters among these."""
    labelled = np.flatnonzero((known >= 0) & (unit != 0).any(1).cpu().numpy())
    if 2 * len(labelled) >= len(known):
        labelled = thin_seeds(unit, known, proposal.radius)
    queries = np.searchsorted(proposal.unmatched, proposal.queries)
    nameless = queries[known[queries] < 0]
    clusters = first_free + np.arange(len(nameless))
    return np.concatenate([labelled, nameless]), np.concatenate([known[labelled], clusters]), clusters


def _taken_labels(
    head: IncrementalNeuralHashing, source: FeatureSource, proposal: Proposal, placed: Placed, known: Tensor
) -> Tensor:
    """A label for each unmatched example: the given one, else the nearest new slot's if it lies nearer than every old.

    Otherwise the answer of the old slots stands.
    """
    old = torch.from_numpy(proposal.prediction.labels[proposal.unmatched]).to(placed.labels)
    centres, labels, parts = placed.centres[placed.voters], placed.labels[placed.voters], []
    for rows in source.blocks(columns=max(head.n_slots, len(labels))):
        features = normalize(source(rows).float())
        nearest, slot = (features @ centres.T).amax(1).max(1)
        present = (features @ head.centres.T).amax((1, 2))
        parts.append(torch.where(nearest > present, labels[slot], old[rows]))
    taken = torch.cat(parts)
    taken[placed.seeds] = placed.labels
    return torch.where(known >= 0, known, taken)
