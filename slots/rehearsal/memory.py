"""Rehearsal memory: a few thousand examples of the old data as half-precision features, stored with the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import feature_lengths, normalize
from slots.progress import Progress, silent
from slots.rounding import full_product
from slots.shapes import Ids

MOST_EXAMPLES = 3000
"""Examples kept at most; half of them may be held-out ones."""

MOST_BYTES = 1 << 24
"""Features kept at most: 16 MiB, for example 3,000 of 2,796 numbers."""


@dataclass(frozen=True)
class RehearsalMemory:
    """Examples of the data that a model was fitted on and updated with.

    Parameters
    ----------
    features : float16 tensor of shape (example, feature)
        Unit features on the CPU, each by its view nearest to a slot.
    labels : int64 tensor of shape (example,)
        Label ids, on the CPU.
    held_out : bool tensor of shape (example,)
        Examples that trained nothing.
    lengths : float32 tensor of shape (example,), optional
        Of the features before they were brought to unit length: with it what they were before a whitening is known
        again. Default: nobody kept them, as in models of an older version.
    n_told : int, default 0
        The last so many were labelled after the fit (count); they are thinned last.
    """

    features: Float[Tensor, "example feature"]
    labels: Int[Tensor, " example"]
    held_out: Bool[Tensor, " example"]
    lengths: Float[Tensor, " example"] | None = None
    n_told: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def judges(self) -> Bool[Tensor, " example"]:
        """Which judge a planned update and take no part in making it: held-out ones, and every other of the rest."""
        rest = (~self.held_out).long()
        return self.held_out | ((rest.cumsum(0) % 2 == 0) & ~self.held_out)

    def taught(self) -> tuple[Tensor, Tensor]:
        """Unit float32 features and labels of the examples that new slots are made beside: all but the judges."""
        rows = ~self.judges
        return normalize(self.features[rows].float()), self.labels[rows]

    def judging(self) -> tuple[Tensor, Tensor, Tensor]:
        """Unit float32 features, labels, and which are held out, of the judges."""
        rows = self.judges
        return normalize(self.features[rows].float()), self.labels[rows], self.held_out[rows]

    def state(self) -> dict[str, Tensor]:
        """Tensors to store, under the names that stored models have."""
        stored = {"features": self.features.contiguous(), "labels": self.labels, "held_out": self.held_out}
        if self.lengths is not None:
            stored |= {"lengths": self.lengths, "n_told": torch.tensor([self.n_told])}
        return stored

    @staticmethod
    def from_state(tensors: dict[str, Tensor]) -> RehearsalMemory:
        """What `state` gave."""
        n_told = int(tensors["n_told"][0]) if "n_told" in tensors else 0
        columns = tensors["features"], tensors["labels"], tensors["held_out"]
        return RehearsalMemory(*columns, tensors.get("lengths"), n_told)

    def joined(
        self,
        features: Float[Tensor, "new feature"],
        labels: Int[Tensor, " new"],
        lengths: Float[Tensor, " new"] | None = None,
    ) -> RehearsalMemory:
        """The memory with more examples, thinned at random where they become too many.

        Parameters
        ----------
        features : float tensor of shape (new, feature)
            Unit features; rows of zeros are left out.
        labels : int64 tensor of shape (new,)
            Their labels.
        lengths : float tensor of shape (new,), optional
            Of their features. Default: not known, and then those of all others are forgotten.

        Returns
        -------
        RehearsalMemory
            The same for the same examples in the same order. Those of the fit are thinned before those told later, as
            long as half of the memory is theirs.
        """
        usable = (features != 0).any(1)
        features, labels = features[usable], labels.to(usable.device)[usable]
        known = self.lengths is not None and lengths is not None
        every = RehearsalMemory(
            torch.cat([self.features, features.half().cpu()]),
            torch.cat([self.labels, labels.cpu()]),
            torch.cat([self.held_out, torch.zeros(len(labels), dtype=torch.bool)]),
            torch.cat([self.lengths, lengths[usable].float().cpu()]) if known else None,  # type: ignore[list-item, index]
            self.n_told + len(labels),
        )
        most, n = _most(features.shape[1]), len(every)
        if n <= most:
            return every
        n_told = min(every.n_told, max(most // 2, most - (n - every.n_told)))
        rng, first = np.random.default_rng(n), n - every.n_told
        old = rng.permutation(first)[: most - n_told]
        told = first + rng.permutation(every.n_told)[:n_told]
        rows = torch.from_numpy(np.sort(np.concatenate([old, told])))
        left = None if every.lengths is None else every.lengths[rows]
        return RehearsalMemory(every.features[rows], every.labels[rows], every.held_out[rows], left, n_told)

    def relabelled(self, gone: int, label: int) -> RehearsalMemory:
        """The memory after all slots of one label got another."""
        labels = torch.where(self.labels == gone, torch.full_like(self.labels, label), self.labels)
        return replace(self, labels=labels)


@torch.no_grad()
def remember(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: Ids,
    *,
    held_out: Ids,
    seed: int = 0,
    progress: Progress = silent,
) -> RehearsalMemory:
    """Choose what a model remembers of its training data: held-out examples first, the rest at random.

    Parameters
    ----------
    source : FeatureSource
        The whole training set.
    head : IncrementalNeuralHashing
        The fitted slots; each example is kept by its view nearest to one of them.
    y : int64 array of shape (example,)
        Labels.
    held_out : int64 array
        Ids of the examples that training did not see; may be empty.
    seed : int, default 0
        Which examples are drawn.
    progress : callable, optional
        ``progress("remembering", share)``, told how far it is.

    Returns
    -------
    RehearsalMemory
        At most `MOST_EXAMPLES`, in at most `MOST_BYTES`; examples without a direction are left out.
    """
    most, rng = _most(head.feature_dim), np.random.default_rng(seed)
    aside = np.sort(rng.permutation(held_out)[: most // 2])
    rest = np.setdiff1d(np.arange(len(y)), held_out)
    rest = np.sort(rng.permutation(rest)[: most - len(aside)])
    ids = np.concatenate([aside, rest]).astype(np.int64)
    kept = torch.zeros(len(ids), head.feature_dim, dtype=torch.float16)
    lengths = torch.zeros(len(ids))
    for rows in source.blocks(len(ids), columns=head.n_slots):
        progress("remembering", rows.stop / len(ids))
        features = source(ids[rows]).float()
        unit = normalize(features)
        view = full_product(unit, head.weights.detach().T).amax(2).argmax(1)
        here = torch.arange(len(unit), device=unit.device), view
        kept[rows] = unit[here].half().cpu()
        lengths[rows] = feature_lengths(features[here]).cpu()
    usable = (kept != 0).any(1)
    labels, asides = torch.from_numpy(y[ids]), torch.arange(len(ids)) < len(aside)
    return RehearsalMemory(kept[usable], labels[usable], asides[usable], lengths[usable])


def _most(n_features: int) -> int:
    return max(1, min(MOST_EXAMPLES, MOST_BYTES // (2 * max(1, n_features))))
