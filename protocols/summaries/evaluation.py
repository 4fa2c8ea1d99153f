"""How good a model's answers are, against known labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.head.prediction import Prediction


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one labelled set; shares lie in [0, 1] and are None where nothing was there to count.

    Parameters
    ----------
    n : int
        Examples.
    accuracy : float or None
        Right answers, matched or not.
    matched : float or None
        Share for which at least one slot fires, ambiguous answers included.
    ambiguous : float or None
        Share for which slots of two or more labels fire.
    accuracy_matched : float or None
        Right answers among the matched.
    accuracy_unmatched : float or None
        Right answers among the rest: what the pooled score guesses where no slot vouches.
    """

    n: int
    accuracy: float | None
    matched: float | None
    ambiguous: float | None
    accuracy_matched: float | None
    accuracy_unmatched: float | None


def evaluate(prediction: Prediction, labels: npt.NDArray[np.int64]) -> Evaluation:
    """Accuracy and coverage of answers, against known labels.

    Parameters
    ----------
    prediction : Prediction
        Answers to labelled examples.
    labels : int64 array of shape (example,)
        True labels of the same examples.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there are more or fewer labels than answers.

    Examples
    --------
    >>> from slots.head import Prediction
    >>> a = np.array
    >>> p = Prediction(a([0, 1]), a([2, 0], np.int8), a([0, 1]), a([0.1, -0.1]), a([-1, 0]), a([-1.0, -1.0]))
    >>> evaluate(p, a([0, 0])).accuracy, evaluate(p, a([0, 0])).accuracy_matched
    (0.5, 1.0)
    """
    if len(labels) != len(prediction):
        raise ValueError(
            f"`labels` must have shape ({len(prediction)},), got {labels.shape}. Give one label an answer."
        )
    right, matched = prediction.labels == labels, prediction.matched
    return Evaluation(
        n=len(labels),
        accuracy=_share(right),
        matched=_share(matched),
        ambiguous=_share(prediction.ambiguous),
        accuracy_matched=_share(right[matched]),
        accuracy_unmatched=_share(right[~matched]),
    )


def confusion(prediction: Prediction, labels: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.int64]:
    """Counts of shape (class, class): rows are true labels, columns the answers.

    Parameters
    ----------
    prediction : Prediction
        Answers to labelled examples.
    labels : int64 array of shape (example,)
        True labels of the same examples.
    n_classes : int
        Labels from this on are left out, in rows and columns.
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    known = (labels >= 0) & (labels < n_classes) & (prediction.labels < n_classes)
    np.add.at(counts, (labels[known], prediction.labels[known]), 1)
    return counts


def _share(hits: npt.NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None
