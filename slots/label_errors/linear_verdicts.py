"""What a linear classifier says of each label on feature rows, made without the example itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

_FOLDS = 5
_LEAST = 1e-6  # smallest probability: a class of which a fold has one example or none is not impossible


def linear_log_probabilities(
    rows: npt.NDArray[np.float64], y: npt.NDArray[np.int64], *, seed: int
) -> npt.NDArray[np.float64]:
    """Logarithms of class probabilities of linear discriminant analysis in five folds.

    Parameters
    ----------
    rows : float array of shape (example, feature)
        Features; finite.
    y : int64 array of shape (example,)
        From 0 to the number of classes - 1.
    seed : int
        Of the folds, each of which has its share of every class.

    Returns
    -------
    float64 array of shape (example, class)
        Each row by a classifier that has not seen it. The covariance within classes is shrunk (Ledoit and Wolf 2004),
        so that more features than examples do no harm. 0 throughout where a fold
        learns from fewer than two classes of two examples.
    """
    n_classes = int(y.max()) + 1
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % _FOLDS
    found = np.zeros((len(y), n_classes))
    for number in range(_FOLDS):
        learned, asked = fold != number, fold == number
        known = np.flatnonzero(np.bincount(y[learned], minlength=n_classes) > 1)
        learned &= np.isin(y, known)
        if not asked.any() or len(known) < 2 or learned.sum() <= len(known):
            continue
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows[learned], y[learned])
        chances = np.full((int(asked.sum()), n_classes), _LEAST)
        chances[:, known] = classifier.predict_proba(rows[asked]).clip(min=_LEAST)
        found[asked] = np.log(chances)
    return found
