"""How wide groups may be so that one label holds for all of a group: measured on remembered examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.jit import compiled
from slots.rounding import full_product

N_GROUPS = 20
"""Groups whose purity counts: the first ones, which are the largest."""

_MOST = 1000  # examples whose pairs are looked at
_LEAST = 20  # with fewer nothing can be said
_RADII = 60  # tried between none and a right angle


@dataclass(frozen=True)
class GroupRadius:
    """A radius of groups, and how pure they were where it was measured.

    Parameters
    ----------
    radius : float
        Largest angle from a group's middle to its members, radians.
    purity : float or None
        Mean share of a group's members, in [0, 1], that have the label of its middle, over the first `N_GROUPS` groups
        of remembered examples. None where nothing was measured.
    """

    radius: float
    purity: float | None


@torch.no_grad()
def group_radius(
    features: Float[Tensor, "example feature"],
    labels: Tensor,
    views: Float[Tensor, "new view feature"],
    *,
    purity: float,
    most: float,
) -> GroupRadius:
    """The largest radius at which groups of new examples are expected to be of one label.

    Parameters
    ----------
    features, labels : tensors of shape (example, feature) and (example,)
        Remembered examples in random order: unit vectors, and their labels.
    views : float tensor of shape (new, view, feature)
        Unit features of the new examples that are to be grouped.
    purity : float in (0, 1]
        Wanted mean share of a group that has the label of its middle.
    most : float
        Largest radius that may come out, radians.

    Returns
    -------
    GroupRadius
        ``most`` and None where fewer than 20 examples or a single label are remembered.

    Notes
    -----
    Ours. Groups are those of greedy maximum coverage (`slots.update.queries`), which looks for the fullest caps and
    so meets the impure ones first; therefore the same coverage is run on as many remembered examples, and the purity of
    its first groups is what counts, not that of a random cap. New data may lie closer together than the remembered
    (blurred, from another camera, of few classes); a radius in radians would then hold far more. So it is cut to the
    angle within which the same share of all pairs lies as on the remembered data.
    """
    n = min(len(features), len(views), _MOST)
    if n < _LEAST or len(labels.unique()) < 2:
        return GroupRadius(most, None)
    known = full_product(features[:n], features[:n].T)
    scores, marks = known.cpu().numpy(), labels[:n].cpu().numpy()
    tried = [most * (place + 1) / _RADII for place in range(_RADII)]
    found = GroupRadius(tried[0], _purity(scores, marks, scores.dtype.type(math.cos(tried[0]))))
    for radius in tried:
        measured = _purity(scores, marks, scores.dtype.type(math.cos(radius)))
        if measured < purity:
            break
        found = GroupRadius(radius, measured)
    places = torch.arange(0, len(views), -(-len(views) // n))
    fresh = full_product(views[places].flatten(0, 1), views[places][:, 0].T)
    fresh = fresh.view(len(places), views.shape[1], len(places)).amax(1)
    return GroupRadius(min(found.radius, _same_share(known, fresh, found.radius)), found.purity)


@compiled
def _purity(scores: npt.NDArray[Any], labels: npt.NDArray[np.int64], least: float) -> float:
    """Mean share of the label of its middle, of the first groups of greedy maximum coverage above a cosine."""
    gains, covered = np.zeros(len(scores), np.int64), np.zeros(len(scores), np.bool_)
    for row in range(len(scores)):
        for other in range(len(scores)):
            gains[row] += row == other or scores[row, other] > least
    total, found = 0.0, 0
    while found < N_GROUPS:
        middle = int(np.argmax(gains))
        if gains[middle] <= 0:
            break
        size, alike = 0, 0
        for other in range(len(scores)):
            if covered[other] or not (middle == other or scores[middle, other] > least):
                continue
            covered[other] = True
            size += 1
            alike += labels[other] == labels[middle]
            for row in range(len(scores)):
                gains[row] -= row == other or scores[row, other] > least
        total += float(np.float32(alike) / np.float32(size))
        found += 1
    return total / found


def _same_share(known: Tensor, fresh: Tensor, radius: float) -> float:
    """Angle within which as large a share of the pairs of ``fresh`` lies as of ``known`` within ``radius``."""
    share = float((_pairs(known) > math.cos(radius)).double().mean())
    scores = _pairs(fresh)
    rank = min(len(scores), max(1, math.ceil((1 - share) * len(scores))))
    return math.acos(min(1.0, max(-1.0, float(scores.kthvalue(rank).values))))


def _pairs(scores: Tensor) -> Tensor:
    """All but the diagonal."""
    return scores[~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]
