"""The examples of a continual learner that wait to be learned, in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import Codes, Rows, quantize
from slots.shapes import Ids


@dataclass
class PendingBuffer:
    """Buffer of pending examples: quantized rows with their label ids, in the order in which they came.

    Parameters
    ----------
    codes : int8 array of shape (example, feature)
        Rows in 8 bits (`slots.continual.pca_slots.quantize`).
    scales : float32 array of shape (example,)
        What the codes of a row are multiplied by.
    ids : int64 array of shape (example,)
        Label id of each row, >= 0.
    """

    codes: Codes
    scales: npt.NDArray[np.float32]
    ids: Ids

    @classmethod
    def empty(cls, n_features: int) -> PendingBuffer:
        """An empty buffer."""
        return cls(np.zeros((0, n_features), np.int8), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.codes.nbytes + self.scales.nbytes + self.ids.nbytes

    def copy(self) -> PendingBuffer:
        """The same; arrays are never written into, so they are shared."""
        return PendingBuffer(self.codes, self.scales, self.ids)

    def add(self, rows: Rows, ids: Ids) -> None:
        """Put rows at the end."""
        codes, scales = quantize(rows)
        self.codes = np.concatenate([self.codes, codes])
        self.scales = np.concatenate([self.scales, scales])
        self.ids = np.concatenate([self.ids, ids])

    def most_frequent_label(self) -> int:
        """The label that most pending rows have, the lowest of several."""
        return int(np.bincount(self.ids).argmax())

    def pop_label(self, label: int) -> Rows:
        """Take out the rows of a label."""
        chosen = self.ids == label
        rows: Rows = self.codes[chosen] * self.scales[chosen, None]
        self.codes, self.scales, self.ids = self.codes[~chosen], self.scales[~chosen], self.ids[~chosen]
        return rows
