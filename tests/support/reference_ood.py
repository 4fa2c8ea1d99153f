"""Novelty, slowly: what `slots.ood` and `slots.conformal` compute, one input, prototype and number at a time."""

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
