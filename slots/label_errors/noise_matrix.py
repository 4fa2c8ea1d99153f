"""How labels were confused: a noise matrix read off the surest examples, and what it says about every label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

ANCHORS = 0.1
"""Share of the examples predicted as a class that count as sure: the more, the more honest doubt is taken for noise."""

_FEWEST_ANCHORS = 100  # fewer hold too few errors to tell pairs from chance
_DOUBT = 1.92  # log-likelihood: half the 95 % quantile of chi-squared with one degree of freedom
_STRENGTHS = np.geomspace(0.01, 1000.0, 61)  # from "every cell for itself" to "all cells alike"


def confident_joint(probabilities: Probabilities, y: Labels, *, share: float = ANCHORS) -> npt.NDArray[np.int64]:
    """Confident joint: the given labels of the surest examples of each predicted class.

    Parameters
    ----------
    probabilities : float array of shape (example, class)
        Of each class, by a network that has not memorised the example.
    y : int64 array of shape (example,)
        Given labels, positions of the classes.
    share : float in (0, 1], default 0.1
        Of the examples predicted as a class; at least 100 of them where there are so many.

    Returns
    -------
    int64 array of shape (class, class)
        Row: predicted; column: given.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    >>> confident_joint(p, np.array([0, 1, 1]), share=1.0)
    array([[1, 1],
           [0, 1]])
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share}. 0.1 takes the surest tenth of each class.")
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    counts = np.zeros((n_classes, n_classes), np.int64)
    for label in range(n_classes):
        rows = np.flatnonzero(predicted == label)
        wanted = min(len(rows), max(_FEWEST_ANCHORS, round(share * len(rows))))
        surest = rows[np.argsort(-probabilities[rows, label], kind="stable")[:wanted]]
        counts[label] = np.bincount(y[surest], minlength=n_classes)
    return counts


def noise_matrix(counts: npt.NDArray[np.int64]) -> Probabilities:
    """The chance of each given label for each true class, from counts of sure examples.

    Parameters
    ----------
    counts : int64 array of shape (class, class)
        Row: true class; column: given label.

    Returns
    -------
    float array of shape (class, class)
        Rows sum to 1; no entry is 0, since what was not counted may still occur.

    Notes
    -----
    The counts off the diagonal are few. They are taken as Poisson with rates from one gamma distribution, whose mean is
    the mean rate (empirical Bayes: Robbins 1956; the marginal is a negative binomial). Its strength is the largest that
    the likelihood does not refute at 95 %: no more structure than the counts ask for. Where labels were confused in
    pairs the counts decide alone; where noise is uniform all rates shrink to their mean.

    Examples
    --------
    >>> noise_matrix(np.array([[950, 50], [0, 1000]])).round(3)
    array([[0.951, 0.049],
           [0.001, 0.999]])
    """
    from scipy.special import gammaln

    n = len(counts)
    off = ~np.eye(n, dtype=bool)
    totals = counts.sum(1).astype(np.float64)
    seen, exposure = counts[off].astype(np.float64), np.repeat(totals, n - 1)
    mean = max(seen.sum(), 0.5) / max(exposure.sum(), 1.0)
    a, b = _STRENGTHS[:, None], _STRENGTHS[:, None] / mean
    likelihood = gammaln(seen + a) - gammaln(a) + a * np.log(b / (b + exposure)) - seen * np.log(b + exposure)
    total = likelihood.sum(1)
    strength = float(_STRENGTHS[np.flatnonzero(total >= total.max() - _DOUBT)[-1]])
    matrix: Probabilities = (counts + strength) / (totals[:, None] + strength / mean)
    matrix[~off] = 0.0
    matrix *= np.minimum(1.0, 0.9 / np.maximum(matrix.sum(1, keepdims=True), 1e-300))  # a class keeps some of its own
    matrix[~off] = 1 - matrix.sum(1)
    return matrix


def posterior(probabilities: Probabilities, y: Labels, matrix: Probabilities) -> Probabilities:
    """Posterior of the true class when the given label is taken into account (Bayes' rule).

    Parameters
    ----------
    probabilities : float array of shape (example, class)
        Of each class, without regard to the given label; > 0.
    y : int64 array of shape (example,)
        Given labels, positions of the classes.
    matrix : float array of shape (class, class)
        As `noise_matrix` gives it.

    Returns
    -------
    float array of shape (example, class)
        ``P(c | x, given) ~ P(c | x) P(given | c)``, rows sum to 1.

    Examples
    --------
    >>> p = np.array([[0.5, 0.3, 0.2]])
    >>> confused = np.array([[0.9, 0.0, 0.1], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9]])
    >>> posterior(p, np.array([2]), confused).round(3)
    array([[0.217, 0.   , 0.783]])
    """
    joint = probabilities * matrix[:, y].T
    chances: Probabilities = joint / joint.sum(1, keepdims=True)
    return chances
