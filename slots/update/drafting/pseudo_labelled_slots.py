"""New slots of pseudo-labels: the middles of what is surely of one label, and what they leave wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.clustering.kmeans import centres as centres_of
from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.shapes import Ids
from slots.update.config import UpdateConfig
from slots.update.drafting.draft import DraftedSlots, Prototypes
from slots.update.queries import Proposal
from slots.update.self_training import Pool, PseudoLabels, make_pool, self_train
from slots.update.snapshot import Snapshot

CONFIDENT = 0.2
"""Lead of a pseudo-label (in votes) from which slots are made of it and refined on it."""

_MEMBERS = 25  # confident examples for each slot; with fewer a middle says little
_SAMPLE = 3000  # examples of a label that k-means sees


@dataclass(frozen=True)
class PseudoLabelledSlots:
    """New slots of pseudo-labels before their refinement, over the unmatched examples.

    Parameters
    ----------
    prototypes : Prototypes
        Those that are pooled stand for many examples; the others remember one given label that those would answer
        wrong.
    labels : int64 array of shape (unmatched,)
        Given, pseudo-label, or (without a direction) the old answer.
    confident : bool array of shape (unmatched,)
        Whether the label may be learned from.
    sources : int64 array of shape (slot,)
        Place among the unmatched of the given label that each slot rests on: the nearest of its label; -1 where none
        was given, so that it rests on the old slots' answers.
    """

    prototypes: Prototypes
    labels: Ids
    confident: npt.NDArray[np.bool_]
    sources: Ids


@torch.no_grad()
def slots_of_pseudo_labels(
    head: IncrementalNeuralHashing,
    pool: Pool,
    found: PseudoLabels,
    *,
    unmatched: Ids,
    known: Ids,
    slots_per_label: int,
    seed: int = 0,
) -> PseudoLabelledSlots:
    """Prototypes of confident pseudo-labels, by k-means within each label.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        The present slots; they do not move.
    pool : Pool
        The unlabelled examples.
    found : PseudoLabels
        What they most likely are.
    unmatched : int64 array of shape (unmatched,)
        Rows of the new data, ascending; those of the pool are among them.
    known : int64 array of shape (unmatched,)
        Given labels, -1 where unknown.
    slots_per_label : int
        Most prototypes of one label (count, >= 1).
    seed : int, default 0
        Where k-means starts.

    Returns
    -------
    PseudoLabelledSlots

    Notes
    -----
    Slots of old labels are made too: what is unmatched and familiar is the rim of the old classes, and only beside
    slots of its own does a new class get no more than its share of it.
    """
    device = head.weights.device
    places = np.searchsorted(unmatched, pool.open)
    labels = pool.prediction.labels[unmatched]
    labels[places] = found.labels
    confident = np.zeros(len(unmatched), bool)
    confident[places] = found.margins >= CONFIDENT
    told = np.flatnonzero(known[places] >= 0)
    centres, of_slots, seeds = [pool.unit[:0]], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label in np.unique(found.labels):
        mine = np.flatnonzero((found.labels == label) & (found.margins >= CONFIDENT))
        if len(mine) == 0:
            continue
        middles = _middles(pool.unit[torch.from_numpy(mine).to(device)], slots_per_label, seed)
        nearest = (pool.unit[torch.from_numpy(mine).to(device)] @ middles.T).argmax(0).cpu().numpy()
        centres.append(middles)
        of_slots.append(np.full(len(middles), label, np.int64))
        seeds.append(mine[nearest])
    n_pooled = sum(map(len, of_slots))
    given = _Given(pool.unit, told, known[places])
    wrong = given.left_wrong(head, torch.cat(centres), np.concatenate(of_slots))
    centres.append(pool.unit[torch.from_numpy(wrong).to(device)])
    of_slots.append(known[places][wrong])
    seeds.append(wrong)
    middle, label_of = torch.cat(centres), np.concatenate(of_slots)
    prototypes = Prototypes(
        seeds=torch.from_numpy(places[np.concatenate(seeds)]).to(device),
        centres=middle,
        labels=torch.from_numpy(label_of).to(device),
        pooled=torch.arange(len(label_of), device=device) < n_pooled,
    )
    return PseudoLabelledSlots(prototypes, labels, confident, given.sources(middle, label_of, places))


def _middles(unit: Float[Tensor, "example feature"], most: int, seed: int) -> Float[Tensor, "slot feature"]:
    """Unit centres of k-means, fewer where examples are few."""
    count = min(most, 1 + len(unit) // _MEMBERS)
    rows = unit[:: max(1, -(-len(unit) // _SAMPLE))].cpu().numpy()
    count = min(count, len(np.unique(rows, axis=0)))
    return normalize(torch.from_numpy(centres_of(rows, count, seed=seed)).to(unit))


@dataclass(frozen=True)
class _Given:
    """Given labels among the open examples: their places, and the labels of all (-1 where unknown)."""

    unit: Tensor
    told: Ids
    known: Ids

    def left_wrong(self, head: IncrementalNeuralHashing, middles: Tensor, of_slots: Ids) -> Ids:
        """Places whose label the nearest of the old and new slots contradicts."""
        if len(self.told) == 0:
            return self.told
        vectors = torch.cat([head.weights.detach(), middles])
        labels = np.concatenate([head.labels.cpu().numpy(), of_slots])
        nearest = (self._rows(self.told) @ vectors.T).argmax(1).cpu().numpy()
        wrong: Ids = self.told[labels[nearest] != self.known[self.told]]
        return wrong

    def sources(self, centres: Tensor, of_slots: Ids, places: Ids) -> Ids:
        """The nearest given label of each slot's own label, as a place among the unmatched; -1 for none."""
        sources = np.full(len(of_slots), -1, np.int64)
        for label in np.unique(self.known[self.told]):
            slots, given = np.flatnonzero(of_slots == label), self.told[self.known[self.told] == label]
            if len(slots):
                scores = centres[torch.from_numpy(slots).to(centres.device)] @ self._rows(given).T
                sources[slots] = places[given[scores.argmax(1).cpu().numpy()]]
        return sources

    def _rows(self, places: Ids) -> Tensor:
        return self.unit[torch.from_numpy(places).to(self.unit.device)]


def pseudo_labelled_draft(
    snapshot: Snapshot,
    source: FeatureSource,
    given: Ids,
    proposal: Proposal,
    *,
    config: UpdateConfig,
    pool: Pool | None,
    progress: Progress,
) -> DraftedSlots:
    """New slots of the pseudo-labels that self-training spreads from the given ones.

    Parameters
    ----------
    snapshot : Snapshot
        Of the model.
    source : FeatureSource
        All of the new data.
    given : int64 array of shape (example,)
        Its labels, -1 where unknown.
    proposal : Proposal
        Which of the new data are unmatched, and the answers to the others.
    config : UpdateConfig
        With ``spread``.
    pool : Pool or None
        Made here where there is none.
    progress : callable
        ``progress(step, share)``, told the progress.
    """
    pool = make_pool(snapshot, source, proposal.prediction, progress=progress) if pool is None else pool
    found = slots_of_pseudo_labels(
        snapshot.head,
        pool,
        self_train(pool, given, config=config.spread),
        unmatched=proposal.unmatched,
        known=given[proposal.unmatched],
        slots_per_label=config.slots_per_label,
        seed=config.seed,
    )
    labels = torch.from_numpy(found.labels).to(snapshot.device)
    return DraftedSlots(found.prototypes, labels, found.confident, np.zeros(0, np.int64), found.sources)
