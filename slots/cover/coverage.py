"""Who covers whom, as bits: a cap covers an example when the score lies above the cap's threshold.

The matrix of scores is never held whole: a tile of it is made, compared and packed, then forgotten. Tiles are
float32; whatever lies within 1e-5 of a threshold (or of a maximum) is computed again in float64. So the bits do not
depend on the size of a tile, on threads or on the device. On an NVIDIA GPU fused kernels do it
(`slots.cover.fused`), with the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.cover.bits import CoverBlock, pack_bits
from slots.cover.fused import has_fused_kernels
from slots.cover.thresholds import ROUNDING, just_above
from slots.rounding import full_precision
from slots.shapes import Features, Labels, SlotLabels, SlotVectors, Thresholds, ViewFeatures

NEAR = 1e-5
"""Scores closer than this to what they are compared with are computed again in float64."""

_BLOCK = 1024
_BLOCK_ON_GPU = 8192  # fewer and larger kernels: a launch takes longer there than a small tile
_CACHED = 1 << 17  # numbers that stay in a cache while pairs are computed again
_MOST_WAITING = 1 << 20
_MOSTLY_NEAR = 16  # when more than one in this many scores of a tile is near, the whole tile is made in float64


@torch.no_grad()
def cap_thresholds(
    candidates: SlotVectors,
    candidate_labels: SlotLabels,
    examples: Features,
    labels: Labels,
    *,
    block: int | None = None,
) -> Thresholds:
    """Precision threshold of each candidate: just above its largest cosine to any example of another label.

    Parameters
    ----------
    candidates : float tensor of shape (candidate, feature)
        Normalised here. When these and their labels are the same tensors as the examples', each tile serves both ways.
    candidate_labels : int64 tensor of shape (candidate,)
        Label of each candidate.
    examples : float tensor of shape (example, feature)
        Normalised here.
    labels : int64 tensor of shape (example,)
        Label of each example.
    block : int, optional
        Rows and columns of a tile (count, >= 64). Default: 1,024, on a GPU 8,192; the fused kernels have their own.

    Returns
    -------
    float32 tensor of shape (candidate,)
        A cap covers what scores strictly above it; minus infinity where there is no other label.

    Raises
    ------
    ValueError
        If ``block`` is smaller than 64.

    Notes
    -----
    The largest float64 score, rounded up: the example that sets a threshold never fires, in whatever order its score is
    summed. The radius of the class cover catch digraph (Priebe et al. 2003) on the sphere.

    Examples
    --------
    >>> x = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> cap_thresholds(x, torch.tensor([0, 0, 1]), x, torch.tensor([0, 0, 1]))
    tensor([0.6000, 0.8000, 0.8000])
    """
    step = _checked_block(block, examples.device)
    symmetric = candidates is examples and candidate_labels is labels
    if has_fused_kernels(examples.device) and len(examples) > 0 and len(candidates) > 0:
        from slots.cover.fused.coverage import fused_maxima

        order, top = fused_maxima(candidates, candidate_labels, examples, labels, symmetric=symmetric)
    else:
        rows = _Side.by_label(candidates, candidate_labels)
        columns = rows if symmetric else _Side.by_label(examples, labels)
        order, top = rows.order, _tiled_maxima(rows, columns, step)
    return just_above(top, order)


def _tiled_maxima(rows: _Side, columns: _Side, block: int) -> Float[Tensor, " row"]:
    """Largest float64 cosine of each row to a column of another label, tile by tile."""
    symmetric = columns is rows
    running = _RunningMax(rows, columns)
    room = rows.unit.new_empty(min(block, len(rows.unit)) * min(block, len(columns.unit)))
    with full_precision():
        for a, b in _tiles(len(rows.unit), len(columns.unit), block, symmetric=symmetric):
            if rows.only_label(a) is not None and rows.only_label(a) == columns.only_label(b):
                continue
            shape = a.stop - a.start, b.stop - b.start
            # All tiles in one room: among the small lists that wait, new ones would leave the heap full of holes.
            tile = torch.mm(rows.unit[a], columns.unit[b].T, out=room[: shape[0] * shape[1]].view(shape))
            if rows.shares_label(a, columns, b):
                tile.masked_fill_(rows.labels[a][:, None] == columns.labels[b], -math.inf)
            running.update(tile, a, b)
            if symmetric and a != b:
                running.update(tile.T, b, a)
    return running.result()


@torch.no_grad()
def coverage_bits(
    candidates: SlotVectors,
    candidate_labels: SlotLabels,
    thresholds: Thresholds,
    examples: Features | ViewFeatures,
    labels: Labels,
    *,
    centres: SlotVectors | None = None,
    support_thresholds: Thresholds | None = None,
    margin: float = 0.0,
    block: int | None = None,
) -> list[CoverBlock]:
    """Which candidate covers which example of its own label.

    Parameters
    ----------
    candidates : float tensor of shape (candidate, feature)
        Normalised here. When these and their labels are the same tensors as the examples', each tile serves both ways.
    candidate_labels : int64 tensor of shape (candidate,)
        Label of each candidate.
    thresholds : float tensor of shape (candidate,)
        A cap contains what scores strictly above its threshold.
    examples : float tensor of shape (example, feature) or (example, view, feature)
        Normalised here. One view inside is enough.
    labels : int64 tensor of shape (example,)
        Label of each example.
    centres : float tensor of shape (candidate, feature), optional
        Axes of second caps: the same view must lie in both caps of the candidate.
    support_thresholds : float tensor of shape (candidate,), optional
        Thresholds of the second caps.
    margin : float, default 0.0
        How deep inside each cap an example must lie (radians, >= 0).
    block : int, optional
        Rows and columns of a tile (count, >= 64). Default: 1,024, on a GPU 8,192; the fused kernels have their own.

    Returns
    -------
    list of CoverBlock
        One a label of the examples, ascending; together they are the block-diagonal coverage matrix.

    Raises
    ------
    ValueError
        If ``block`` or ``margin`` is out of range, or one of ``centres`` and ``support_thresholds`` is missing.
    """
    step = _checked_block(block, examples.device)
    if not margin >= 0:
        raise ValueError(f"`margin` must be at least 0, got {margin}. It is an angle in radians.")
    if (centres is None) != (support_thresholds is None):
        raise ValueError("`centres` must come with `support_thresholds`, got one of them. Pass both or neither.")
    caps = [(candidates, _shrunk(thresholds, margin))]
    if centres is not None and support_thresholds is not None:
        caps.append((centres, _shrunk(support_thresholds, margin)))
    symmetric = candidates is examples and centres is None and candidate_labels is labels
    if has_fused_kernels(examples.device) and centres is None and examples.ndim == 2 and len(examples) > 0:
        from slots.cover.fused.coverage import fused_blocks, split_sides

        split = split_sides(candidates, candidate_labels, examples, labels, symmetric=symmetric)
        return fused_blocks(*split, caps[0][1])
    blocks = []
    for label in labels.unique().tolist():
        mine = (candidate_labels == label).nonzero()[:, 0]
        own = (labels == label).nonzero()[:, 0]
        columns = _Side.of(examples[own].reshape(-1, examples.shape[-1]))
        sides = [columns if symmetric else _Side.of(axes[mine]) for axes, _ in caps]
        limits = [limit[mine] for _, limit in caps]
        views = examples.shape[1] if examples.ndim == 3 else 1
        with full_precision():
            words = _block_words(sides, limits, columns, views, step)
        blocks.append(CoverBlock(label, mine, own, words))
    return blocks


@dataclass(frozen=True)
class _Side:
    """Vectors on one side of the matrix: as given, their lengths in float64, of unit length in float32."""

    raw: Float[Tensor, "row feature"]
    length: Float[Tensor, " row"]
    unit: Float[Tensor, "row feature"]
    labels: Int[Tensor, " row"]
    order: Int[Tensor, " row"]

    @cached_property
    def label_list(self) -> list[int]:
        """The labels on the host."""
        return self.labels.tolist()

    @classmethod
    def of(cls, raw: Tensor) -> _Side:
        """Without labels, in the order given."""
        order = torch.arange(len(raw), device=raw.device)
        return cls(raw, *_unit(raw), torch.zeros_like(order), order)

    @classmethod
    def by_label(cls, raw: Tensor, labels: Tensor) -> _Side:
        """Sorted by label."""
        order = labels.argsort(stable=True)
        ordered = raw[order]
        return cls(ordered, *_unit(ordered), labels[order], order)

    def only_label(self, part: slice) -> int | None:
        """The label of a part, if it has one only."""
        first, last = self.label_list[part.start], self.label_list[part.stop - 1]
        return first if first == last else None

    def shares_label(self, part: slice, other: _Side, other_part: slice) -> bool:
        """Whether a label may stand in both parts."""
        mine, theirs = self.label_list[part], other.label_list[other_part]
        return mine[0] <= theirs[-1] and theirs[0] <= mine[-1]


def _exact_pairs(rows: _Side, i: Tensor, columns: _Side, j: Tensor) -> Tensor:
    """Float64 cosines of pairs."""
    step = max(1, (_CACHED if i.device.type == "cpu" else 64 * _CACHED) // rows.raw.shape[1])
    parts = [torch.zeros(0, dtype=torch.float64, device=i.device)]
    for left, right in zip(i.split(step), j.split(step), strict=True):
        products = (rows.raw[left].double() * columns.raw[right].double()).sum(-1)
        parts.append(products / (rows.length[left] * columns.length[right]))
    return torch.cat(parts)


def _exact_tile(rows: _Side, a: slice, columns: _Side, b: slice) -> Tensor:
    """Float64 cosines of a whole tile."""
    left = rows.raw[a].double() / rows.length[a][:, None]
    return left @ (columns.raw[b].double() / columns.length[b][:, None]).T


def _unit(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths in float64 (1 for a zero row, which stays zero) and unit rows in float32."""
    lengths, units = [raw.new_zeros(0, dtype=torch.float64)], [raw.new_zeros(0, raw.shape[1], dtype=torch.float32)]
    for part in raw.split(_BLOCK):  # in parts, so that no float64 copy of everything is made
        length = torch.linalg.vector_norm(part.double(), dim=1)
        length = torch.where(length > 0, length, torch.ones_like(length))
        lengths.append(length)
        units.append((part.double() / length[:, None]).float())
    return torch.cat(lengths), torch.cat(units)


class _RunningMax:
    """Largest score of each row, exact, over tiles that come one after the other.

    Pairs within `NEAR` of the float32 maximum so far wait; what is still near the maximum when many wait, or at the
    end, is computed in float64.
    """

    def __init__(self, rows: _Side, columns: _Side) -> None:
        self._rows, self._columns = rows, columns
        device = rows.unit.device
        self._rough = torch.full((len(rows.unit),), -math.inf, device=device)
        self._exact = torch.full((len(rows.unit),), -math.inf, dtype=torch.float64, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._n_waiting = 0

    def update(self, tile: Tensor, a: slice, b: slice) -> None:
        """Take in a tile of scores; minus infinity is none."""
        best, rough = tile.amax(1), self._rough[a]
        torch.maximum(rough, best, out=rough)
        rows = ((best >= rough - NEAR) & (best > -math.inf)).nonzero()[:, 0]
        near = (tile[rows] >= (rough[rows] - NEAR)[:, None]).nonzero()
        if _MOSTLY_NEAR * len(near) > tile.numel():
            exact = _exact_tile(self._rows, a, self._columns, b).masked_fill_(tile == -math.inf, -math.inf)
            self._exact[a] = torch.maximum(self._exact[a], exact.amax(1))
            return
        i, j = rows[near[:, 0]], near[:, 1]
        self._waiting.append((i + a.start, j + b.start, tile[i, j]))
        self._n_waiting += len(i)
        if self._n_waiting > _MOST_WAITING:
            self.result()

    def result(self) -> Float[Tensor, " row"]:
        """Maxima of what was taken in, float64."""
        for i, j, scores in self._waiting:
            near = scores >= self._rough[i] - NEAR
            exact = _exact_pairs(self._rows, i[near], self._columns, j[near])
            self._exact.scatter_reduce_(0, i[near], exact, "amax")
        self._waiting.clear()
        self._n_waiting = 0
        return self._exact


def _block_words(
    sides: list[_Side], limits: list[Tensor], columns: _Side, views: int, block: int
) -> Int[Tensor, "candidate word"]:
    """Packed coverage of one label's examples by its candidates."""
    n, n_examples = len(limits[0]), len(columns.raw) // views
    words = torch.zeros(n, -(-n_examples // 64), dtype=torch.int64, device=limits[0].device)
    symmetric = sides[0] is columns
    row_step = 64 * (block // 64)  # a tile begins at the first bit of a word
    column_step = 64 * max(1, block // (64 * views))
    for a, b in _tiles(n, n_examples, row_step, column_step, symmetric=symmetric):
        wide = slice(b.start * views, b.stop * views)
        inside = torch.ones((), dtype=torch.bool, device=words.device)
        for side, limit in zip(sides, limits, strict=True):
            tile = side.unit[a] @ columns.unit[wide].T
            if symmetric and a != b:
                mirrored = _inside(tile.T.contiguous(), limit[b], (side, b, columns, a))
                words[b, a.start // 64 : -(-a.stop // 64)] = pack_bits(mirrored)
            inside = inside & _inside(tile, limit[a], (side, a, columns, wide))
        covers = inside.view(inside.shape[0], -1, views).any(-1) if views > 1 else inside
        words[a, b.start // 64 : -(-b.stop // 64)] = pack_bits(covers)
    return words


def _inside(tile: Tensor, limits: Tensor, place: tuple[_Side, slice, _Side, slice]) -> Bool[Tensor, "row column"]:
    """Scores above the threshold of their row, by the exact rule; writes over the tile."""
    rows, a, columns, b = place
    distance = tile.sub_(limits.float()[:, None])
    inside = distance > 0
    near = (distance.abs_() <= NEAR).nonzero()
    if _MOSTLY_NEAR * len(near) > tile.numel():
        return _exact_tile(*place) > limits[:, None] + ROUNDING
    i, j = near[:, 0], near[:, 1]
    inside[i, j] = _exact_pairs(rows, i + a.start, columns, j + b.start) > limits[i] + ROUNDING
    return inside


def _tiles(
    n_rows: int, n_columns: int, step: int, column_step: int | None = None, *, symmetric: bool
) -> Iterator[tuple[slice, slice]]:
    """Tiles of the matrix; of a symmetric one those on and above the diagonal."""
    column_step = step if column_step is None else column_step
    for i in range(0, n_rows, step):
        for j in range(i if symmetric else 0, n_columns, column_step):
            yield slice(i, min(i + step, n_rows)), slice(j, min(j + column_step, n_columns))


def _shrunk(thresholds: Tensor, margin: float) -> Float[Tensor, " candidate"]:
    """Thresholds of caps whose radius is smaller by ``margin`` radians; 2, above every cosine, for caps that vanish."""
    exact = thresholds.double()
    if margin == 0:
        return exact
    radius = exact.clamp(-1, 1).arccos() - margin
    return torch.where((radius > 0) & (exact <= 1), radius.clamp_min(0).cos(), torch.full_like(exact, 2.0))


def _checked_block(block: int | None, device: torch.device) -> int:
    """Side of a tile; an error for tiles that cannot be packed."""
    if block is None:
        return _BLOCK if device.type == "cpu" else _BLOCK_ON_GPU
    if block < 64:
        raise ValueError(f"`block` must be at least 64, got {block}. A word of packed coverage holds 64 examples.")
    return block
