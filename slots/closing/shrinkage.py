"""Smaller support caps for a model that will meet classes it has not seen.

Precision caps know the other classes of the training data only. An input of a class that comes later falls into the
slots it resembles; the one thing that keeps it out is the support cap. So whoever wants to go on learning gives up
some matches at fit, and wins them back with interest at the first update.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.deciding.exact import exact_scores
from slots.head.decision import matching_pairs
from slots.head.hashing import IncrementalNeuralHashing
from slots.progress import Progress
from slots.rounding import strictly_below


@torch.no_grad()
def shrink_support(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    held_out: npt.NDArray[np.int64],
    *,
    reach: float,
    progress: Progress,
) -> float:
    """Shrink every support cap by one angle, so that a share ``reach`` of the matched held-out data stays matched.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        Its support thresholds are changed in place.
    held_out : int64 array
        Examples that placed no slot; where there are none, all examples are used.
    reach : float in (0, 1]
        Share of the matches that is kept; 1 changes nothing.
    progress : callable
        ``progress("reach", share)``, told the progress.

    Returns
    -------
    float
        The angle in radians, >= 0.

    Notes
    -----
    One angle for all slots, because a slot's own examples say how far its class reaches, and nothing about how near an
    unseen class may lie. Measured on MNIST (pixels, fitted on 0-7): at ``reach=0.8`` the share of nines that a slot
    of 4 or 7 swallows falls from 36 to 10 %.
    """
    ids = held_out if len(held_out) else np.arange(len(source))

    def work(rows: slice) -> tuple[Tensor]:
        progress("reach", rows.stop / len(ids))
        depth = support_depth(source, head, ids[rows])
        return (depth[depth > 0],)

    found = source.each_block(len(ids), work, columns=head.n_slots)
    depths = torch.cat([head.precision_thresholds.new_zeros(0).double(), *(it for (it,) in found)]).sort().values
    if len(depths) == 0 or reach == 1:
        return 0.0
    angle = float(depths[min(len(depths) - 1, math.floor((1 - reach) * len(depths)))])
    limit = head.support_thresholds.double()
    radius = (limit.clamp(-1, 1).arccos() - angle).clamp_min(0)
    head.support_thresholds = torch.where(limit > 1, limit.float(), strictly_below(radius.cos()))
    return angle


def support_depth(source: FeatureSource, head: IncrementalNeuralHashing, ids: npt.NDArray[np.int64]) -> Tensor:
    """Radians inside the deepest support cap among the slots that match, shape (example,); minus infinity for none."""
    caps, features = head.caps(), source(ids)
    example, slot = matching_pairs(features, caps)
    depth = torch.full((len(ids),), -math.inf, dtype=torch.float64, device=features.device)
    for view in range(features.shape[1]):
        pairs = (example, torch.full_like(example, view), slot)
        fires = exact_scores(features, caps.weights, pairs) > caps.precision[slot].double()
        centre = exact_scores(features, caps.centres, pairs).clamp(-1, 1)
        inside = caps.support[slot].double().clamp(-1, 1).arccos() - centre.arccos()
        depth.scatter_reduce_(0, example[fires], inside[fires], "amax")
    return depth
