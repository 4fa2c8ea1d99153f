"""Unit features that a refinement trains on: new inputs in a few views, and what is remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.source import FeatureSource
from slots.features.views import Views
from slots.head.similarities import normalize

_KEPT_VIEWS = 9  # drawn once; more teach little and cost memory
_STEP_VIEWS = 4  # of them, in one step: the input itself and three drawn anew
_KEPT_FLOATS = 1 << 28  # 1 GiB of features is kept; beyond that they are computed for each batch


@dataclass(frozen=True)
class RefinementData:
    """Training data of the refinement: new inputs, and remembered ones for rehearsal.

    Parameters
    ----------
    source : FeatureSource
        New inputs.
    labels : int64 tensor of shape (example,)
        Their labels: asked, answered by an old slot, or taken from the nearest new one.
    memory : float tensor of shape (memory, feature)
        Unit features of the old slots' support examples.
    memory_labels : int64 tensor of shape (memory,)
        The labels of those slots.
    """

    source: FeatureSource
    labels: Tensor
    memory: Tensor
    memory_labels: Tensor


class RehearsalBatches:
    """Unit features of a few views of any rows of the data: inputs first, then the memory.

    Parameters
    ----------
    data : RefinementData
        Where they come from.
    seed : int
        Of the views that are kept, where there are many.
    """

    def __init__(self, data: RefinementData, seed: int) -> None:
        self.data, self.featurizer = data, data.source.featurizer
        views, n, dim = self.featurizer.views, len(data.source), self.featurizer.feature_dim
        drawn = np.random.default_rng([seed, 1]).permutation(views.n_views - 1)[: _KEPT_VIEWS - 1] + 1
        self.places = [0, *np.sort(drawn).tolist()]
        self.views = Views(views.spec, tuple(views.steps[i] for i in self.places))
        self.kept: Tensor | None = None  # of the inputs; where there is one view also of what is remembered
        if n * len(self.places) * dim <= _KEPT_FLOATS:
            parts = [data.memory.new_zeros(0, len(self.places), dim), *map(self._features, data.source.blocks())]
            self.kept = torch.cat([*parts, data.memory[:, None]] if len(self.places) == 1 else parts)

    def __call__(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Shape (row, view, feature)."""
        if self.kept is not None and len(self.places) == 1:
            return self.kept[torch.from_numpy(rows).to(self.kept.device)]
        few = [0, *(rng.permutation(len(self.places) - 1)[: _STEP_VIEWS - 1] + 1).tolist()]
        n = len(self.data.source)
        inputs = np.flatnonzero(rows < n)
        out = self.data.memory.new_zeros(len(rows), len(few), self.featurizer.feature_dim)
        if len(inputs):
            ids = rows[inputs]
            features = self._features(ids) if self.kept is None else self.kept[torch.from_numpy(ids)]
            out[torch.from_numpy(inputs)] = features[:, few]
        remembered = np.flatnonzero(rows >= n)
        if len(remembered):
            out[torch.from_numpy(remembered)] = self.data.memory[torch.from_numpy(rows[remembered] - n)][:, None]
        return out

    @torch.no_grad()
    def _features(self, rows: slice | npt.NDArray[np.int64]) -> Tensor:
        source = self.data.source
        if source.keeps:
            return normalize(source(rows)[:, self.places].float())
        inputs = self.featurizer.preprocessing(source.x[rows], self.featurizer.device)
        viewed = self.views(inputs) if inputs.ndim == 4 else inputs[:, None]
        return normalize(self.featurizer.featurize(viewed).float())
