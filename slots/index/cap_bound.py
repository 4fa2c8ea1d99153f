"""A bound that finds the few slots an input may match with far fewer products than there are features.

Three steps, each of which may let too much through and never too little:

1. *One cap for two.* An input in both caps of a slot lies in the smallest cap around their intersection, whose axis is
   a combination of weight and centre: one product a slot instead of two.
2. *Leading dimensions.* In an orthonormal basis whose first axes hold most of the slots' energy,
   ``u . v <= lead(u) . lead(v) + |tail(u)| |tail(v)|`` (Cauchy and Schwarz). With the threshold as one more dimension
   the test is one inner product of ``leading_dims + 2`` numbers:
   ``[lead(u), |tail(u)|, 1] . [lead(v), |tail(v)|, -t] > 0``.
3. What is left is tested pair by pair.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from slots.head.caps import SlotCaps
from slots.head.similarities import normalize
from slots.index.half_rows import TYPICAL_ERROR, half_inputs, half_slots
from slots.shapes import SlotVectors, Thresholds

NEAR = 1e-10
"""Largest error of a product summed in float64 from the numbers as given."""

SLACK = 2e-5
"""What rounding to float32 may take from a bound; `slots.head.decision.TOLERANCE` is 1e-5 for one product."""

_TAIL_SQUARE = 1e-5  # added to the square of a tail's length, which is a difference of numbers near 1
_CHUNK = 1 << 23  # float64 numbers held at once while slots are prepared: 64 MB
_SAMPLE = 16_384  # slots that the basis is made from
_COLUMN_NS, _HALF_NS = 0.02, 0.0012  # a multiplication in float32 (100 GFLOP/s), and in bfloat16 where it is quick
_LEADING = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def enclosing_caps(caps: SlotCaps, part: slice) -> tuple[SlotVectors, Thresholds]:
    """Smallest cap around the intersection of each slot's two caps.

    Parameters
    ----------
    caps : SlotCaps
        The slots with both of their caps.
    part : slice
        Which slots.

    Returns
    -------
    axes : float64 tensor of shape (slot, feature)
        Unit vectors.
    thresholds : float64 tensor of shape (slot,)
        ``w . u > p`` and ``c . u > s`` together imply ``axis . u > threshold``, for every unit ``u``.

    Notes
    -----
    Any ``a, b >= 0`` give such a cap, ``(a w + b c) . u > a p + b s``; the smallest has ``(a, b) = G^-1 (p, s)`` with
    ``G`` the inner products of the two axes, or one of the two caps alone where that has a negative part (ours, from
    the Lagrange conditions).

    Examples
    --------
    >>> one = torch.ones(1)
    >>> caps = SlotCaps(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.6 * one, 0.6 * one, one.long(),
    ...                 one.long(), one.bool(), 20.0)
    >>> axes, thresholds = enclosing_caps(caps, slice(None))
    >>> axes.round(decimals=3), thresholds.round(decimals=3)
    (tensor([[0.7070, 0.7070]], dtype=torch.float64), tensor([0.8490], dtype=torch.float64))
    """
    w, c = normalize(caps.weights[part].double()), normalize(caps.centres[part].double())
    p, s = caps.precision[part].double().clamp(-2, 3), caps.support[part].double().clamp(-2, 3)
    g = (w * c).sum(1).clamp(-1, 1)
    a, b = p - g * s, s - g * p
    both = (a > 0) & (b > 0) & (g.abs() < 1 - 1e-9)
    a = torch.where(both, a, (p >= s).double())
    b = torch.where(both, b, (p < s).double())
    raw = a[:, None] * w + b[:, None] * c
    length = torch.linalg.vector_norm(raw, dim=1)
    length = torch.where(length > 0, length, torch.ones_like(length))
    return raw / length[:, None], (a * p + b * s) / length


class CapBound:
    """The bound as two matrices, one of inputs and one of slots, whose product is above zero where a slot may match.

    Parameters
    ----------
    caps : SlotCaps
        At least one slot.
    leading_dims : int, optional
        Axes kept as they are, >= 1; ``feature`` for all, without a tail. Default: as many as are expected to be
        quickest.
    half : bool, default False
        Whether rows are bfloat16 (`slots.index.half_rows`).
    """

    def __init__(self, caps: SlotCaps, *, leading_dims: int | None = None, half: bool = False) -> None:
        n, self.feature_dim = caps.weights.shape
        step = max(1, _CHUNK // self.feature_dim)
        chosen = torch.linspace(0, n - 1, min(n, _SAMPLE), device=caps.weights.device).long().unique()
        moment = caps.weights.new_zeros(self.feature_dim, self.feature_dim, dtype=torch.float64)
        for rows in chosen.split(step):
            axes = enclosing_caps(_take(caps, rows), slice(None))[0]
            moment += axes.T @ axes
        basis = torch.linalg.eigh(moment).eigenvectors.flip(1)
        sample = _take(caps, chosen[:: max(1, len(chosen) // 1024)])
        self._half = half
        leading = choose_leading_dims(sample, basis, n, half=half) if leading_dims is None else leading_dims
        self.leading_dims = min(leading, self.feature_dim)
        self._basis = (
            basis[:, : self.leading_dims].float().contiguous() if self.leading_dims < self.feature_dim else None
        )
        self.slots = self.slot_rows(caps)

    def slot_rows(self, caps: SlotCaps) -> Float[Tensor, "slot column"]:
        """Slots' side: leading dimensions, length of the tail, minus the threshold (less the slack)."""
        finish = half_slots if self._half else torch.Tensor.float
        parts = [finish(caps.weights.new_zeros(0, self._width(), dtype=torch.float32))]
        step = max(1, _CHUNK // self.feature_dim)
        for i in range(0, len(caps.weights), step):
            axes, thresholds = enclosing_caps(caps, slice(i, i + step))
            limit = (SLACK - thresholds)[:, None]
            if self._basis is None:
                parts.append(finish(torch.cat([axes, limit], 1).float()))
                continue
            basis = self._basis.double()
            lead = axes @ basis
            tail = torch.linalg.vector_norm(axes - lead @ basis.T, dim=1, keepdim=True)
            parts.append(finish(torch.cat([lead, tail + 1e-6, limit], 1).float()))
        return torch.cat(parts)

    def input_rows(self, unit: Float[Tensor, "row feature"]) -> Float[Tensor, "row column"]:
        """Inputs' side: leading dimensions, length of the tail, one; of float32 rows of length 1 (or 0)."""
        rows = unit.new_ones(len(unit), self._width())
        rows[:, : self.leading_dims] = unit if self._basis is None else unit @ self._basis
        if self._basis is not None:
            rest = 1 - rows[:, : self.leading_dims].square().sum(1)
            rows[:, self.leading_dims] = (rest.clamp_min(0) + _TAIL_SQUARE).sqrt()
        return half_inputs(rows) if self._half else rows

    def _width(self) -> int:
        """Columns in float32."""
        return self.leading_dims + (1 if self._basis is None else 2)


def choose_leading_dims(
    caps: SlotCaps, basis: Float[Tensor, "feature axis"], n_slots: int, *, half: bool = False
) -> int:
    """Number of axes expected to take the least time; it changes no answer.

    Inputs are not known yet. In their stead stand points at the edge of a slot's cap, moved there toward another slot.
    """
    axes, thresholds = enclosing_caps(caps, slice(None))
    edge = thresholds.clamp(0.05, 1)[:, None]
    aside = axes.roll(1 + len(axes) // 3, 0)
    aside = normalize(aside - (aside * axes).sum(1, keepdim=True) * axes)
    points = ((edge * axes + (1 - edge.square()).sqrt() * aside) @ basis)[:: max(1, len(axes) // 256)]
    slots = axes @ basis
    feature = basis.shape[0]
    limits = thresholds - TYPICAL_ERROR if half else thresholds
    column = _HALF_NS if half else _COLUMN_NS
    passes = _share(points @ slots.T, limits)
    best, cheapest = feature, n_slots * (column * (feature + 1) + _pair_ns(feature, passes))
    for lead in (dims for dims in _LEADING if dims < feature):
        left = torch.outer(_tail(points, lead), _tail(slots, lead))
        passes = _share(points[:, :lead] @ slots[:, :lead].T + left, limits)
        cost = n_slots * (column * (lead + 2) + _pair_ns(feature, passes)) + _COLUMN_NS * lead * feature
        if cost < cheapest:
            best, cheapest = lead, cost
    return best


def _pair_ns(feature: int, passes: float) -> float:
    """Expected time of a pair beside its product: a look at the bound, and the test of what passes."""
    return 0.12 + passes * (80 + 0.2 * feature)


def _share(bounds: Tensor, thresholds: Tensor) -> float:
    """Share of pairs that pass."""
    return float((bounds > thresholds).double().mean())


def _tail(rows: Tensor, lead: int) -> Tensor:
    """Length of what is left of each row after its first ``lead`` numbers."""
    length: Tensor = torch.linalg.vector_norm(rows[:, lead:], dim=1)
    return length


def _take(caps: SlotCaps, rows: Tensor) -> SlotCaps:
    """Some of the slots."""
    parts: dict[str, Any] = {
        name: value[rows] if isinstance(value, Tensor) else value for name, value in vars(caps).items()
    }
    return SlotCaps(**parts)
