"""How far an input may be moved before its nearest slot has another label: exact for two slots, a bound for more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.robust.boundary_kernels import BOX, DUAL, PAIR, Asked, Found, SlotArrays, fill_radii
from slots.robust.box_kernels import Space, gap_matrix
from slots.robust.config import Norm

Method = Literal["pair", "box", "dual"]
"""``pair``: the plane between two slots. ``box``: that plane, reached inside the range of inputs. ``dual``: all own
slots at once (Euclidean norm only)."""

Box = tuple[float, float]
"""Smallest and largest entry of an input."""

_METHODS = {"pair": PAIR, "box": BOX, "dual": DUAL}
_ROUNDING = 1e-9  # taken off each radius: far above what float64 sums of thousands are off
_MOST_SLOTS = 1 << 14  # the lengths of all their differences take 2 GiB
_BLOCK = 1 << 23  # scores held at once, 64 MB


@dataclass(frozen=True)
class NearestSlotRadii:
    """Of each input the label of its nearest slot and how far that is safe.

    Parameters
    ----------
    labels : int64 array of shape (example,)
        Label of the slot of largest cosine.
    radii : float64 array of shape (example,)
        Every change that is shorter leaves the label as it is; 0 for ties.
    rivals : int64 array of shape (example,)
        Place of the slot that sets the radius; -1 where there is no other label.
    changes : float64 array of shape (example, feature), or None
        With ``dual``: the smallest change of the input for which the rival scores as much as every slot of the label.
    """

    labels: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float64]
    rivals: npt.NDArray[np.int64]
    changes: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class LabelledSlots:
    """Slots whose largest cosine, softly pooled or not, gives the label.

    Parameters
    ----------
    weights : float64 array of shape (slot, feature)
        Unit vectors.
    labels : int64 array of shape (slot,)
        Of each.
    beta : float, default infinity
        Inverse temperature of SoftMaxPool; infinity is the maximum.
    views : int, default 1
        How often each slot is there: once for each view, of which a pool takes the best.
    """

    weights: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    beta: float = math.inf
    views: int = 1

    @staticmethod
    def of(weights: Tensor, labels: Tensor, beta: float = math.inf) -> LabelledSlots:
        """Slots from tensors, normalised in float64."""
        unit = normalize(weights.detach().double()).cpu().numpy()
        return LabelledSlots(np.ascontiguousarray(unit), labels.cpu().numpy(), beta)

    @property
    def loss_of_pooling(self) -> float:
        """By how much, in cosine, the pool of a class may lie below its largest score: ``log(n) / beta``."""
        if math.isinf(self.beta) or len(self.labels) == 0:
            return 0.0
        most = int(np.unique(self.labels, return_counts=True)[1].max()) // self.views
        return math.log(most) / self.beta if self.beta > 0 else math.inf


def nearest_slot_radii(
    rows: npt.NDArray[np.float64],
    slots: LabelledSlots,
    *,
    norm: Norm = "l2",
    box: Box | None = None,
    method: Method = "pair",
) -> NearestSlotRadii:
    """Certify the label of the nearest slot.

    Parameters
    ----------
    rows : float64 array of shape (example, feature)
        Inputs, not normalised.
    slots : LabelledSlots
        At least one.
    norm : {"l2", "linf"}, default "l2"
        How a change is measured.
    box : pair of float, optional
        Range that changed inputs stay in, for ``box`` and ``dual``. Default: none.
    method : {"pair", "box", "dual"}, default "pair"
        From quick to exact; each is a lower bound of the next.

    Returns
    -------
    NearestSlotRadii

    Raises
    ------
    UsageError
        If the method does not go with norm or box, a row lies outside the box, or there are more than 16,384 slots.

    Notes
    -----
    The length of ``x`` is common to all cosines and cancels in every comparison, so the slots are compared by ``s_k =
    <x, w_k>``. While for each slot ``j`` of another label some own slot ``i`` has ``s_i > s_j`` the answer stands.
    **pair**: ``r = min over j of max over i of (s_i - s_j) / |w_i - w_j|_q`` with ``1/p + 1/q = 1`` (the distance
    from the nearest plane; Wang et al. 2019, Voracek and Hein 2022). **box**: the farthest that ``<delta, w_j - w_i>``
    gets inside ball and box at once. **dual**: for each ``j`` the quadratic programme ``min |delta|^2`` subject to
    ``<x + delta, w_j - w_i> >= 0`` for all own ``i``, by coordinate ascent on its dual (Hildreth 1957), of which every
    value is a lower bound.

    With a finite ``beta`` a pool lies between ``max s - log(n) / beta`` and ``max s`` (in cosine), since it is the
    log-sum-exp less the entropy of its weights; the lead must exceed that times the largest length that the input can
    get.
    """
    if method not in get_args(Method) or (method == "dual" and norm != "l2"):
        raise UsageError(f"`method` must be pair, box or, for l2, dual, got {method!r} for {norm}. Use box for linf.")
    if method == "box" and box is None:
        raise UsageError("`box` must be given for the method box, got none. Pass box=(0, 1) for pixels, or use pair.")
    span: Box = (-math.inf, math.inf) if box is None else box
    if len(rows) and (rows.min() < span[0] or rows.max() > span[1]):
        raise UsageError(f"`x` must lie in the box {box}, got {rows.min():g} to {rows.max():g}. Widen the box.")
    if len(slots.labels) > _MOST_SLOTS:
        raise UsageError(
            f"`slots` must be at most {_MOST_SLOTS:,} to be certified, got {len(slots.labels):,}: the lengths of all "
            "their differences are held. Fit fewer slots a class."
        )
    n, infinity = len(rows), norm == "linf"
    found = Found(np.zeros(n), np.full(n, -1), np.zeros((n, rows.shape[1] if method == "dual" else 0)))
    labels = np.zeros(n, np.int64)
    arrays = SlotArrays(slots.weights, slots.labels, gap_matrix(slots.weights, infinity))
    step = max(1, _BLOCK // max(1, len(slots.labels)))
    for part in (slice(i, min(n, i + step)) for i in range(0, n, step)):
        block = np.ascontiguousarray(rows[part])
        asked = Asked(block, block @ slots.weights.T, _slack(block, slots, span, infinity=infinity))
        labels[part] = slots.labels[asked.scores.argmax(1)]
        place = Found(found.radii[part], found.rivals[part], found.changes[part])
        fill_radii(asked, arrays, Space(*span, infinity), _METHODS[method], place)
    radii = np.where((rows != 0).any(1), found.radii * (1 - _ROUNDING), 0.0)  # zeros have no direction
    return NearestSlotRadii(labels, radii, found.rivals, found.changes if method == "dual" else None)


def _slack(rows: npt.NDArray[np.float64], slots: LabelledSlots, box: Box, *, infinity: bool) -> npt.NDArray[np.float64]:
    """What a lead must exceed, by how much that grows with the radius, and its largest value; see `Asked`."""
    loss, d = slots.loss_of_pooling, rows.shape[1]
    lengths, farthest = np.linalg.norm(rows, axis=1), math.sqrt(d) * max(abs(box[0]), abs(box[1]))
    rounding = 2 * (d + 8) * 2.0**-53 * lengths  # of two products of unit rows with the input
    growth = loss * (math.sqrt(d) if infinity else 1.0)
    most = np.full(len(rows), loss * farthest if loss > 0 else 0.0)
    return np.stack([loss * lengths + rounding, np.full(len(rows), growth), most + rounding], axis=1)
