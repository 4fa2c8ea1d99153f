"""Novelty, slowly: what `detector` and `conformal` compute, one input, prototype and number at a time."""

import math

import numpy as np


def p_value(score, calibration):
    """Share of calibration scores that are as high or higher, the score itself counted among them."""
    return (1 + sum(1 for other in calibration if other >= score)) / (len(calibration) + 1)


def unit(row):
    return row / math.sqrt(sum(x * x for x in row))


def precision(residuals, shrinkage):
    """Inverse of the second moments, with a share of their mean added along the diagonal."""
    moments = sum(np.outer(row, row) for row in residuals) / len(residuals)
    return np.linalg.inv(moments + shrinkage * np.trace(moments) / len(moments) * np.eye(len(moments)))


def distances(views, prototypes, inverse, middle):
    """Angle, whitened distance, size and nearest prototype of one input of several views."""
    angles, whitened = [], []
    for view in views:
        for k, prototype in enumerate(prototypes):
            gap = unit(view) - unit(prototype)
            angles.append((math.acos(max(-1.0, min(1.0, float(unit(view) @ unit(prototype))))), k))
            whitened.append(math.sqrt(float(gap @ inverse @ gap)))
    length = math.sqrt(sum(x * x for x in views[0]))
    return min(angles)[0], min(whitened), abs(math.log(length) - middle), min(angles)[1]


def auroc(familiar, foreign):
    """Share of pairs in which the foreign one scores higher, a tie counting half."""
    won = sum(1.0 if b > a else 0.5 if b == a else 0.0 for a in familiar for b in foreign)
    return won / (len(familiar) * len(foreign))


def false_positive_rate(positives, negatives):
    """Share of negatives on the positives' side of the strictest threshold that lets 95 % of the positives through.

    Positives score low.
    """
    for threshold in sorted(positives):
        if sum(p <= threshold for p in positives) >= 0.95 * len(positives):
            return sum(n <= threshold for n in negatives) / len(negatives)
    raise AssertionError("the largest positive lets all through")


def average_precision(positives, negatives):
    """Mean over the positives of the precision at the threshold that is their own score; positives score high."""
    total = 0.0
    for threshold in positives:
        hits = sum(p >= threshold for p in positives)
        total += hits / (hits + sum(n >= threshold for n in negatives))
    return total / len(positives)


def flat_distance(view, middles, directions, spreads):
    """Distance of one unit row to its nearest flat in units of the flat's spread: what projection leaves."""
    found = []
    for middle, basis, spread in zip(middles, directions, spreads, strict=True):
        gap = view - middle
        left = gap - sum((gap @ column) * column for column in basis.T)
        found.append(math.sqrt(float(left @ left) / spread))
    return min(found)
