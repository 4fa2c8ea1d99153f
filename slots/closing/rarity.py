"""Caps beside classes of few examples: drawn as if these classes had as many as others.

A precision cap ends at the nearest example of another label. The nearest of two examples lies farther away than the
nearest of a hundred would, so caps beside a rare class swallow what more of its examples would have kept out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.closing.caps import Reference
from slots.head.similarities import best_view, normalize
from slots.rounding import full_product, strictly_above
from slots.shapes import Ids

_LEAST = 0.05
"""Standard deviations below which a correction is not worth a pass over the data."""

_TABLE = 1 << 23  # numbers in a table of class and slot


@torch.no_grad()
def allow_for_rare(data: Reference, ids: Ids) -> bool:
    """Make precision caps smaller where the examples that limit them are of a class with fewer examples than the mean.

    Parameters
    ----------
    data : Reference
        Slots, whose thresholds change in place, and examples.
    ids : int64 array
        The examples that set the caps.

    Returns
    -------
    bool
        Whether any class is rare; False also where the head tolerates foreign examples, of which one sets no cap.

    Notes
    -----
    Ours. The angle from a slot to a class's nearest example gets smaller by ``s (e(m) - e(n))``: ``n`` examples of the
    class, ``m`` in the mean of the classes, ``e(n)`` the expected largest of ``n`` standard normal numbers (Blom 1958),
    ``s`` the standard deviation within classes of the angles to this slot. Classes of equal sizes change nothing.
    """
    classes, place, sizes = np.unique(data.y.cpu().numpy()[ids], return_inverse=True, return_counts=True)
    lack = lacking(sizes)
    if data.head.n_slots == 0 or data.head.precision < 1 or not (lack > _LEAST).any():
        return False
    head, step = data.head, max(1, _TABLE // len(classes))
    for start in range(0, head.n_slots, step):
        slots = slice(start, start + step)
        limit = _limits(data, ids, place, slots, classes=classes, sizes=sizes, lack=lack)
        gone = (limit <= 0).to(head.precision_thresholds.device)
        narrow = strictly_above(limit.clamp(0, math.pi).cos()).to(gone.device)
        head.precision_thresholds[slots] = torch.maximum(head.precision_thresholds[slots], narrow)
        head.support_thresholds[slots] = torch.where(gone, 2.0, head.support_thresholds[slots])
    return True


def lacking(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Standard deviations by which the nearest of a mean class's examples would be nearer, for each class; >= 0.

    Parameters
    ----------
    sizes : int64 array of shape (class,)
        Examples of each, >= 1.

    Examples
    --------
    >>> lacking(np.array([1, 5, 18])).round(2)
    array([1.43, 0.25, 0.  ])
    """
    return np.asarray(np.clip(_largest(sizes.mean()) - _largest(sizes), 0, None))


def _largest(n: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Expected largest of so many standard normal numbers."""
    from scipy.special import ndtri  # a third of a second, which only fits need

    n = np.asarray(n, np.float64)
    return np.asarray(ndtri((n - 0.375) / (n + 0.25)))


def _limits(
    data: Reference,
    ids: Ids,
    place: npt.NDArray[np.int64],
    slots: slice,
    *,
    classes: Ids,
    sizes: npt.NDArray[np.int64],
    lack: npt.NDArray[np.float64],
) -> Tensor:
    """Angle at which each slot's cap must end for the sake of rare classes; infinite where none is near."""
    weights, labels = data.head.weights.detach()[slots], data.head.labels[slots].cpu()
    total = torch.zeros(len(classes), len(weights), dtype=torch.float64)
    squares = torch.zeros(len(weights), dtype=torch.float64)
    nearest = torch.full_like(total, math.inf)
    seen = 0
    for part, features, _ in data.blocks(ids, "rare classes"):
        scores = best_view(full_product(normalize(features.float()), weights.T))[0]
        angles = scores.double().clamp(-1, 1).arccos().cpu()
        here = torch.from_numpy(place[seen : seen + len(part)])
        seen += len(part)
        total.index_add_(0, here, angles)
        squares += (angles**2).sum(0)
        nearest.scatter_reduce_(0, here[:, None].expand_as(angles), angles, "amin")
    n = torch.from_numpy(sizes).double()[:, None]
    within = (squares - (total**2 / n).sum(0)).clamp_min(0) / max(1, len(ids) - len(classes))
    lacks = torch.from_numpy(lack)[:, None]
    own = torch.from_numpy(classes)[:, None] == labels
    return (nearest - lacks * within.sqrt()).masked_fill(own | (lacks == 0), math.inf).amin(0)
