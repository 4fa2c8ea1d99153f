"""FAISS as a proposer: a cap test is an inner product in one more dimension, ``[u, 1] . [v, -t] > 0``.

The flat index finds every pair. The others, made to be quick, miss some; `slots.index.SlotIndex.recall` measures it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slots.errors import MissingExtraError, UsageError

Kind = Literal["flat", "ivf", "hnsw"]
Singles = npt.NDArray[np.float32]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_GPU_NEIGHBOURS = 2048  # the most that a GPU index returns
_LINKS = 32  # of a node of the HNSW graph


def load_faiss() -> Any:
    """Import FAISS, or say what to install."""
    try:
        import faiss
    except ImportError as missing:
        raise MissingExtraError(
            "`backend='faiss'` must find FAISS, got no module of that name. "
            "Run: pip install 'neural-slots[faiss-cpu]' (with NVIDIA GPUs: 'neural-slots[faiss-gpu]')."
        ) from missing
    return faiss


class FaissProposer:
    """A FAISS index of caps.

    Parameters
    ----------
    caps : float32 array of shape (slot, feature + 1)
        Axis and minus threshold of each.
    kind : {"flat", "ivf", "hnsw"}
        ``"flat"`` compares with all; ``"ivf"`` with the lists nearest to the input; ``"hnsw"`` walks a graph.
    effort : int
        Lists looked at (``"ivf"``), or nodes kept in view (``"hnsw"``).
    gpu : bool
        Move a flat index to the GPUs.
    """

    def __init__(self, caps: Singles, *, kind: Kind, effort: int, gpu: bool) -> None:
        if kind not in {"flat", "ivf", "hnsw"}:
            raise UsageError(f"`approximate` must be None, 'ivf' or 'hnsw', got {kind!r}. Choose one of the three.")
        self._faiss = load_faiss()
        self.exact = kind == "flat"
        width = caps.shape[1]
        self.ranged = not gpu
        if kind == "hnsw":
            self._index = self._faiss.IndexHNSWFlat(width, _LINKS, self._faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efSearch = effort
        elif kind == "ivf":
            lists = max(1, min(round(len(caps) ** 0.5), len(caps) // 39))  # FAISS wants 39 vectors a list
            self._coarse = self._faiss.IndexFlatIP(width)  # kept: the index does not own it
            self._index = self._faiss.IndexIVFFlat(self._coarse, width, lists, self._faiss.METRIC_INNER_PRODUCT)
            self._index.nprobe = min(effort, lists)
            self._index.train(caps)
        else:
            self._index = self._faiss.IndexFlatIP(width)
        self._index.add(caps)
        if gpu:
            self._index = self._faiss.index_cpu_to_all_gpus(self._index)

    def add(self, caps: Singles) -> None:
        """Append caps."""
        self._index.add(caps)

    def propose(self, inputs: Singles) -> Pairs:
        """Rows and slots whose product is above zero; of an index that is not exact, most of them.

        Parameters
        ----------
        inputs : float32 array of shape (row, feature + 1)
            Unit rows with a one appended.

        Returns
        -------
        rows, slots : int64 arrays of shape (pair,)
        """
        if not self.ranged:
            return self._nearest_until_all(inputs)
        ends, _, slots = self._index.range_search(inputs, 0.0)
        return np.repeat(np.arange(len(inputs)), np.diff(ends.astype(np.int64))), slots.astype(np.int64)

    def _nearest_until_all(self, inputs: Singles) -> Pairs:
        """The same where there is no range search: as many neighbours as it takes until one is not above zero."""
        rows, slots = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        waiting, wanted = np.arange(len(inputs)), min(64, self._index.ntotal)
        while len(waiting):
            scores, found = self._index.search(inputs[waiting], wanted)
            done = (scores[:, -1] <= 0) | (wanted == self._index.ntotal)
            row, column = np.nonzero((scores > 0) & done[:, None])
            rows.append(waiting[row])
            slots.append(found[row, column].astype(np.int64))
            waiting = waiting[~done]
            if wanted == min(_GPU_NEIGHBOURS, self._index.ntotal):
                break
            wanted = min(8 * wanted, _GPU_NEIGHBOURS, self._index.ntotal)
        everything = np.arange(self._index.ntotal)  # for what has more neighbours than can be asked for: all slots
        rows.append(np.repeat(waiting, len(everything)))
        slots.append(np.tile(everything, len(waiting)))
        return np.concatenate(rows), np.concatenate(slots)
