"""What a user would take to find wrong labels: cleanlab on out-of-sample probabilities, and nearest neighbours.

Higher = more suspicious, everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

FitPredict = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Probabilities]
"""``fit_predict(fitted, held_out)``: class probabilities of the held-out rows by what was fitted to the others."""


@dataclass(frozen=True)
class Ranking:
    """How suspicious a peer finds each label, and the list that its own rule makes.

    Parameters
    ----------
    suspicion : float64 array of shape (example,)
        Higher = more suspicious.
    listed : int64 array
        The examples that the method itself calls wrong; empty where it has no such rule.
    """

    suspicion: npt.NDArray[np.float64]
    listed: npt.NDArray[np.int64]


def cleanlab(
    probabilities: Probabilities, y: Labels, *, method: Literal["self_confidence", "normalized_margin"]
) -> Ranking:
    """Rank by cleanlab's label quality, and list the issues of its default rule.

    Parameters
    ----------
    probabilities : float array of shape (example, class)
        Out of sample.
    y : int64 array of shape (example,)
        Positions of the classes.
    method : {"self_confidence", "normalized_margin"}
        Probability of the given label, or that less the largest of another.

    References
    ----------
    C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(y, probabilities, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may overcome what it warns of: rare classes, none left to prune
        issues = find_label_issues(
            labels=y, pred_probs=probabilities, return_indices_ranked_by=method, n_jobs=1, min_examples_per_class=1
        )
    return Ranking(1.0 - np.asarray(quality, np.float64), np.asarray(issues, np.int64))


def out_of_sample(
    fit_predict: FitPredict, y: Labels, *, folds: int, seed: int, progress: Callable[[float], None] | None = None
) -> Probabilities:
    """Class probabilities of every example by a model that was fitted without its fold.

    Parameters
    ----------
    fit_predict : callable
        See `FitPredict`; called once a fold.
    y : int64 array of shape (example,)
        From 0 to the number of classes - 1; every fold holds its share of each.
    folds : int
        Parts of the data, each left out once (count, >= 2).
    seed : int
        Of the split into folds.
    progress : callable, optional
        Told the share that is done.

    Returns
    -------
    float64 array of shape (example, class)
    """
    from sklearn.model_selection import StratifiedKFold

    found = np.zeros((len(y), int(y.max()) + 1))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), y)
    for done, (fitted, held_out) in enumerate(splits):
        found[held_out] = fit_predict(fitted, held_out)
        if progress:
            progress((done + 1) / folds)
    return found


def logistic_regression(features: Features, y: Labels) -> FitPredict:
    """scikit-learn's logistic regression on standardised features, at most 100 iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fit_predict(fitted: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]) -> Probabilities:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[fitted], y[fitted])
        found: Probabilities = model.predict_proba(features[held_out]).astype(np.float64)
        return found

    return fit_predict


def neighbours(features: Features, count: int) -> npt.NDArray[np.int64]:
    """The nearest other examples by the angle between features, nearest first, int64 of shape (example, count)."""
    from sklearn.neighbors import NearestNeighbors

    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1)
    index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(unit)
    found: npt.NDArray[np.int64] = index.kneighbors(return_distance=False).astype(np.int64)  # without a query: not self
    return found


def neighbour_shares(near: npt.NDArray[np.int64], y: Labels) -> Probabilities:
    """Share of each label among the neighbours, shape (example, class)."""
    rows = np.repeat(np.arange(len(near)), near.shape[1])
    shares = np.zeros((len(near), int(y.max()) + 1))
    np.add.at(shares, (rows, y[near].ravel()), 1.0 / near.shape[1])
    return shares


def disagreement(near: npt.NDArray[np.int64], y: Labels) -> Ranking:
    """Share of the neighbours that have another label; those with a majority against them are listed."""
    against = 1.0 - neighbour_shares(near, y)[np.arange(len(y)), y]
    order = np.argsort(-against, kind="stable")
    return Ranking(against, order[against[order] > 0.5])


def other_is_nearest(near: npt.NDArray[np.int64], y: Labels) -> Ranking:
    """Yes or no: whether the nearest other example has another label."""
    against = y[near[:, 0]] != y
    return Ranking(against.astype(np.float64), np.flatnonzero(against))
