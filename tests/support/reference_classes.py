"""Class evidence and weighted scores, slowly: one input, class and number at a time."""

import math

import numpy as np
from sklearn.covariance import ledoit_wolf


def class_evidence(x, rows, labels):
    """Relative distance, distance off the plane of the means, and energy of one input, by full inverse matrices.

    The covariances are Ledoit and Wolf's within classes, and the same plus the scatter of the class means.
    """
    classes = sorted(set(labels.tolist()))
    mean = rows.mean(0)
    means = {c: rows[labels == c].mean(0) for c in classes}
    within = np.stack([row - means[c] for row, c in zip(rows, labels.tolist(), strict=True)])
    covariance = ledoit_wolf(within, assume_centered=True)[0] * len(rows) / (len(rows) - len(classes))
    scatter = sum((labels == c).mean() * np.outer(means[c] - mean, means[c] - mean) for c in classes)
    inverse = np.linalg.inv(covariance)

    def squared(gap, precision):
        return float(gap @ precision @ gap)

    nearest = min(squared(x - means[c], inverse) for c in classes)
    whole = squared(x - mean, np.linalg.inv(covariance + scatter))
    spanned = np.stack([means[c] - mean for c in classes])
    along = np.linalg.pinv(spanned @ inverse @ spanned.T) @ spanned @ inverse @ (x - mean)
    left = x - mean - along @ spanned
    # 'whole' and 'nearest' hold the part off the plane of the means alike
    logits = [(x - mean) @ inverse @ (means[c] - mean) - squared(means[c] - mean, inverse) / 2 for c in classes]
    return nearest - whole, math.sqrt(squared(left, inverse)), -math.log(sum(map(math.exp, logits)))


def rarity(value, knots, excess):
    """Minus the logarithm of the share of reference values beyond, read off nine steps and an exponential."""
    if value <= knots[0]:
        return 0.0
    for k in range(9):
        if value <= knots[k + 1]:
            step = (value - knots[k]) / (knots[k + 1] - knots[k])
            return -math.log(1 - (k + step) / 10)
    return -math.log(0.1) + (value - knots[9]) / excess


def weighted_score(row, tails, weights, total):
    """The larger of the weighted sum's rarity and the largest rarity, with four and one fifth of the alarms."""
    found = [rarity(v, tails.quantiles[:, k], tails.mean_excess[k]) for k, v in enumerate(row)]
    together = rarity(
        sum(w * r for w, r in zip(weights, found, strict=True)), total.quantiles[:, 0], total.mean_excess[0]
    )
    return max(together + math.log(0.8), max(found) + math.log(0.2 / len(found)))
