"""Features of a whole data set: each input goes through the backbone once where memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.distributed import ALONE, Ranks
from slots.features.featurizer import Featurizer, settle
from slots.head.similarities import normalize
from slots.progress import Progress
from slots.shapes import Ids, RawInputs, ViewFeatures

Rows = slice | npt.NDArray[np.int64]

KEPT_BYTES = 1 << 30
"""Features up to this size are kept: 1 GiB, for example 50,000 inputs of 2 views and 2,684 features."""


class FeatureSource:
    """The view features of a data set, computed when they are first asked for, by a backbone that no longer changes.

    Parameters
    ----------
    featurizer : Featurizer
        In evaluation mode from here on.
    x : array of shape (example, ...)
        Raw inputs, checked already.
    keep : bool, default True
        Keep what was computed, where all of it fits into `KEPT_BYTES`; False where each example is asked for once.
    ranks : Ranks, default ALONE
        Processes that all hold the same inputs, and share the work of passes over them.
    """

    def __init__(self, featurizer: Featurizer, x: RawInputs, *, keep: bool = True, ranks: Ranks = ALONE) -> None:
        settle(featurizer)
        self.featurizer, self.x, self.ranks = featurizer, x, ranks
        size = len(x) * featurizer.views.n_views * featurizer.feature_dim * 4
        self._memory = _Memory(len(x)) if keep and len(x) and size <= KEPT_BYTES else None
        self._ids: npt.NDArray[np.int64] | None = None  # places in the memory, where it holds more than these inputs
        self._part: tuple[npt.NDArray[np.int64], FeatureSource] | None = None

    @property
    def keeps(self) -> bool:
        """Whether features are held once they are computed, so that asking again costs nothing."""
        return self._memory is not None

    def __len__(self) -> int:
        return len(self.x)

    def __call__(self, rows: Rows) -> ViewFeatures:
        """Features of some examples, shape (example, view, feature)."""
        if self._memory is None or (isinstance(rows, np.ndarray) and len(rows) == 0):
            return self._compute(rows)
        places = self._learn(rows)
        return self._memory.take(rows if self._ids is None else places)

    def plain(self, rows: Rows) -> Float[Tensor, "example feature"]:
        """Features of some examples as they are, their first view; other views are not made where they are not kept."""
        if self._memory is None and self.featurizer.sees_each_view_alone:
            return self.featurizer.plain(self.x[rows])
        return self(rows)[:, 0]

    def projected(self) -> FeatureSource:
        """The same inputs after a whitening was put into the featurizer: what is kept is mapped, not computed anew."""
        after = FeatureSource(self.featurizer, self.x, keep=self.keeps, ranks=self.ranks)
        if self._memory is not None and after._memory is not None and self._ids is None:
            known = np.flatnonzero(self._memory.known)
            for rows in self.blocks(len(known)):
                old = self._memory.take(known[rows])
                after._memory.put(known[rows], self.featurizer.project(old.flatten(0, 1)).unflatten(0, old.shape[:2]))
        return after

    def fill(self, progress: Progress) -> FeatureSource:
        """Compute what is not known yet, block by block, where it is kept; returns itself.

        Parameters
        ----------
        progress : callable
            ``progress("features", share)``, told how far it is.
        """
        if self.ranks.size > 1 and self._is_slow:
            self._fill_together(progress)
        for rows in self.blocks() if self.keeps else ():
            progress("features", rows.stop / len(self))
            self._learn(rows)
        return self

    @property
    def _is_slow(self) -> bool:
        """Whether features are made by a network, so that to be told them costs less than to compute them."""
        of_text = self.featurizer.preprocessing.kind == "text"
        return self.keeps and (of_text or any(True for _ in self.featurizer.backbone.parameters()))

    def _fill_together(self, progress: Progress) -> None:
        """Compute what is not known at all; each process some blocks, which all are told."""
        assert self._memory is not None
        blank = [rows for rows in self.blocks() if not self._memory.known[rows].any()] if self._ids is None else []
        for i in range(0, len(blank), self.ranks.size):
            turn = blank[i : i + self.ranks.size]
            progress("features", turn[-1].stop / len(self))
            found = self.ranks.in_order([(self._compute(rows),) for rows in self.ranks.mine(turn)])
            for rows, (features,) in zip(turn, found, strict=True):
                self._memory.put(np.arange(rows.start, rows.stop), features)

    def take(self, rows: npt.NDArray[np.int64], *, keep: bool = True) -> FeatureSource:
        """The source of some of the examples; what is kept here is shared with it.

        Parameters
        ----------
        rows : int64 array
            Places of the examples in this source.
        keep : bool, default True
            Where nothing is kept here, keep the features of these few if they fit: whoever asks for the same rows next
            gets the same source.
        """
        if self._part is not None and np.array_equal(self._part[0], rows):
            return self._part[1]
        part = FeatureSource(self.featurizer, self.x[rows], keep=keep and not self.keeps, ranks=self.ranks)
        if self._memory is not None:
            part._memory = self._memory
            part._ids = rows if self._ids is None else self._ids[rows]
        elif keep:
            self._part = rows, part
        return part

    def blocks(self, n: int | None = None, *, columns: int = 0) -> Iterator[slice]:
        """`Featurizer.blocks` of ``n`` examples; default: of all."""
        return self.featurizer.blocks(len(self) if n is None else n, columns=columns)

    def each_block(
        self, n: int, work: Callable[[slice], tuple[Tensor, ...]], *, columns: int = 0
    ) -> list[tuple[Tensor, ...]]:
        """What some work gives for each of the `blocks`, in their order; several processes share it.

        Parameters
        ----------
        n : int
            Number of examples.
        work : callable
            From the slice of a block to tensors, as many for each block.
        columns : int, default 0
            As in `Featurizer.blocks`.

        Returns
        -------
        list of tuple of tensors
            The same in all processes.
        """
        return self.ranks.each(list(self.blocks(n, columns=columns)), work)

    def _learn(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Compute what is missing of some rows; returns their places in the memory."""
        assert self._memory is not None
        ids = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        places = ids if self._ids is None else self._ids[ids]
        missing = ~self._memory.known[places]
        if missing.any():
            fresh, first = np.unique(places[missing], return_index=True)
            self._memory.put(fresh, self._compute(ids[missing][first]))
        return places

    @torch.no_grad()
    def _compute(self, rows: Rows) -> ViewFeatures:
        return self.featurizer.features(self.x[rows])


class _Memory:
    """Rows of features, filled in any order."""

    def __init__(self, n: int) -> None:
        self.known = np.zeros(n, bool)
        self._rows: Tensor | None = None

    def put(self, places: npt.NDArray[np.int64], features: ViewFeatures) -> None:
        if self._rows is None:
            self._rows = features.new_empty(len(self.known), *features.shape[1:])
        self._rows[torch.from_numpy(places).to(self._rows.device)] = features
        self.known[places] = True

    def take(self, places: Rows) -> ViewFeatures:
        assert self._rows is not None
        return self._rows[places if isinstance(places, slice) else torch.from_numpy(places).to(self._rows.device)]


def first_views(source: FeatureSource, ids: Ids | None = None) -> Float[Tensor, "example feature"]:
    """Float32 features of the inputs themselves (their first view), of some examples or all."""
    n, device = len(source) if ids is None else len(ids), source.featurizer.device
    found = torch.empty(n, source.featurizer.feature_dim, device=device)  # one copy, however many blocks
    for rows in source.blocks(n):
        found[rows] = source.plain(rows if ids is None else ids[rows]).float()
    return found


def unit_features(source: FeatureSource, ids: Ids | None = None) -> Float[Tensor, "example feature"]:
    """`first_views` brought to unit length, zero rows where there is no direction."""
    found = first_views(source, ids)
    for rows in source.blocks(len(found)):
        found[rows] = normalize(found[rows])
    return found
