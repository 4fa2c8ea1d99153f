"""Certificates a second time: loops over slots and entries, bisections, and a solver of others for the programme."""

import math

import numpy as np
from scipy.optimize import nnls
from support.reference_head import cosine, unit


def dual_norm(vector, norm):
    """Length that bounds ``<vector, delta>`` for changes of length 1."""
    return math.sqrt(sum(v * v for v in vector)) if norm == "l2" else sum(abs(v) for v in vector)


def farthest(slope, x, size, norm, box):
    """Largest ``<slope, delta>`` over changes of a size that stay in the box."""
    room = [box[1] - v if s > 0 else v - box[0] for s, v in zip(slope, x, strict=True)]
    if norm == "linf":
        return sum(abs(s) * min(size, r) for s, r in zip(slope, room, strict=True))

    def moved(t):
        return [min(t * abs(s), r) for s, r in zip(slope, room, strict=True)]

    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.hypot(*moved(middle)) < size else (low, middle)
    return sum(abs(s) * m for s, m in zip(slope, moved(low), strict=True))


def pair_radius(x, own, other, norm, box=None):
    """Smallest change at which the scores of two slots meet; infinite where the box holds none."""
    slope = [b - a for a, b in zip(own, other, strict=True)]
    lead = -sum(s * v for s, v in zip(slope, x, strict=True))
    if box is None:
        return lead / dual_norm(slope, norm)
    low, high = 0.0, 10.0 * (box[1] - box[0]) * len(x)
    if farthest(slope, x, high, norm, box) < lead:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if farthest(slope, x, middle, norm, box) < lead else (low, middle)
    return low


def nearest_slot(x, weights, labels):
    """Label of the slot of largest cosine."""
    return labels[max(range(len(weights)), key=lambda k: cosine(x, weights[k]))]


def radius(x, weights, labels, norm, box=None):
    """``min`` over slots of other labels of ``max`` over own slots; the box counts for the best of these alone."""
    label = nearest_slot(x, weights, labels)
    units = [unit(w) for w in weights]
    own = [w for w, other in zip(units, labels, strict=True) if other == label]
    rivals = [w for w, other in zip(units, labels, strict=True) if other != label]
    found = [math.inf]
    for j in rivals:
        best = max(own, key=lambda i: pair_radius(x, i, j, norm))
        found.append(pair_radius(x, best, j, norm, box))
    return min(found)


def shortest(rules, needed):
    """Length of the least ``d`` with ``rules @ d >= needed``, by non-negative least squares (Lawson/Hanson 23.3)."""
    goal = np.zeros(rules.shape[1] + 1)
    goal[-1] = 1.0
    stacked = np.vstack([rules.T, needed])
    left = goal - stacked @ nnls(stacked, goal)[0]
    return math.inf if left[-1] < 1e-6 else float(np.linalg.norm(left[:-1]) / left[-1])


def exact_radius(x, weights, labels, box=None):
    """Shortest change after which a slot of another label scores as much as every own one."""
    label = nearest_slot(x, weights, labels)
    units = np.array([unit(w) for w in weights])
    mine = np.array(labels) == label
    eye = np.eye(len(x)) if box is not None else np.zeros((0, len(x)))
    inside = [] if box is None else [box[0] - x, x - box[1]]
    found = math.inf
    for j in np.flatnonzero(~mine):
        slopes = units[j] - units[mine]
        found = min(found, shortest(np.vstack([slopes, eye, -eye]), np.concatenate([-slopes @ x, *inside])))
    return found
