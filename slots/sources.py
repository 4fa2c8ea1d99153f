"""Features of a whole data set, computed once where memory allows, else each time they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from slots.deciding import decide
from slots.model import SlotModel
from slots.predictions import Prediction
from slots.preprocessing import RawInputs
from slots.shapes import ViewFeatures

KEPT_BYTES = 1 << 30
"""Features up to this size are kept: 1 GiB, for example 50,000 inputs of 2 views and 2,684 features."""


class FeatureSource:
    """The view features of a data set under a model that no longer changes.

    Parameters
    ----------
    model : SlotModel
        In evaluation mode from here on.
    x : array of shape (example, ...)
    report : callable
        ``report(step, share)``, told the progress of the first pass.
    keep : bool, default True
        False where only a few examples will be asked for.
    """

    def __init__(
        self, model: SlotModel, x: RawInputs, report: Callable[[str, float], None], *, keep: bool = True
    ) -> None:
        model.eval()
        self.model, self.x = model, x
        self._kept: ViewFeatures | None = None
        if keep and len(x) and len(x) * model.views.n_views * model.head.feature_dim * 4 <= KEPT_BYTES:
            parts = []
            for rows in model.blocks(len(x)):
                report("features", rows.stop / len(x))
                parts.append(self._compute(rows))
            self._kept = torch.cat(parts)

    @property
    def keeps(self) -> bool:
        """Whether the features are held, so that asking again costs nothing."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self.x)

    def __call__(self, rows: slice | npt.NDArray[np.int64]) -> ViewFeatures:
        """Features of some examples, shape (example, view, feature)."""
        if self._kept is None:
            return self._compute(rows)
        return self._kept[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._kept.device)]

    @torch.no_grad()
    def _compute(self, rows: slice | npt.NDArray[np.int64]) -> ViewFeatures:
        return self.model.features(self.x[rows])

    def predict(self, ids: npt.NDArray[np.int64], report: Callable[[str, float], None]) -> Prediction:
        """Answers of the model to some examples."""
        caps = self.model.head.caps()
        parts = []
        for rows in self.model.blocks(len(ids)):
            report("measuring", rows.stop / len(ids))
            parts.append(decide(self(ids[rows]), caps))
        return Prediction.concatenate(parts)
