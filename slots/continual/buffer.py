"""The examples of a continual learner that wait to be learned, in 8 bits, and which of them wait longest."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import Codes, Rows, quantize
from slots.shapes import Ids

_FOLDS = 5  # a held-out example for so many of a label


@dataclass
class PendingBuffer:
    """Buffer of pending examples: quantized rows with their label ids, in the order in which they came.

    Parameters
    ----------
    codes : int8 array of shape (example, feature)
        Rows in 8 bits (`slots.continual.pca_slots.quantize`).
    scales : float32 array of shape (example,)
        What the codes of a row are multiplied by.
    ids : int32 array of shape (example,)
        Label id of each row, >= 0.
    ranks : float32 array of shape (example,)
        A random number in [0, 1) for each row: of a label, the rows with the least are held out.
    """

    codes: Codes
    scales: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, n_features: int) -> PendingBuffer:
        """An empty buffer."""
        codes = np.zeros((0, n_features), np.int8)
        return cls(codes, np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def copy(self) -> PendingBuffer:
        """The same; arrays are never written into, so they are shared."""
        return PendingBuffer(self.codes, self.scales, self.ids, self.ranks)

    def add(self, rows: Rows, ids: Ids, ranks: npt.NDArray[np.float64]) -> None:
        """Put rows at the end."""
        codes, scales = quantize(rows)
        self.codes = np.concatenate([self.codes, codes])
        self.scales = np.concatenate([self.scales, scales])
        self.ids = np.concatenate([self.ids, ids.astype(np.int32)])
        self.ranks = np.concatenate([self.ranks, ranks.astype(np.float32)])

    def held_out(self, learned: Ids, limit: int) -> npt.NDArray[np.bool_]:
        """Which rows are held out: a fifth of each label's examples, until all labels together have ``limit``.

        Parameters
        ----------
        learned : int64 array of shape (label,)
            Examples of each label that were learned already.
        limit : int
            Held-out examples of all labels, each having the same share, >= 0.

        Returns
        -------
        bool array of shape (example,)
            A label of two examples or more has one at least, as long as there are no more labels than ``limit``.
        """
        waiting = np.bincount(self.ids, minlength=len(learned))
        total = learned + waiting
        share = limit // max(1, int((total > 0).sum()))
        quota = np.minimum(np.maximum(total // _FOLDS, total > 1), share)
        order = np.lexsort((self.ranks, self.ids))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - (np.cumsum(waiting) - waiting)[self.ids[order]]
        return np.asarray(place < quota[self.ids], np.bool_)

    def most_frequent_label(self, among: npt.NDArray[np.bool_]) -> int:
        """The label that most of some rows have, the lowest of several."""
        return int(np.bincount(self.ids[among]).argmax())

    def pop(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        """Take out some rows."""
        rows: Rows = self.codes[chosen] * self.scales[chosen, None]
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[~chosen])
        return rows

    def rows(self) -> Rows:
        """All rows, float32 of shape (example, feature)."""
        return np.asarray(self.codes * self.scales[:, None], np.float32)
