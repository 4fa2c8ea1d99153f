"""What is forgotten in a stream, from the answers to the same test examples after each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Answers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Retention:
    """Accuracy, forgetting and backward transfer of one method on one stream; all in [-1, 1].

    Parameters
    ----------
    final : float
        Accuracy after the last part, on all test examples.
    average : float
        Accuracy on all that can be asked, averaged over the parts.
    forgetting : float
        How far below its best each task's accuracy ends, averaged over all tasks but the last.
    backward : float
        Accuracy on a task at the end less that right after its part, averaged alike (backward transfer).
    lost : float
        Of the test examples that were answered right after their part: the share that is wrong at the end.
    matched_lost : float
        Of all answers that were matched after some part: the share for which a later answer was another.
    matched_share, matched_right : float
        At the end: share matched, and share of these that is right. Not a number for methods that match nothing.
    """

    final: float
    average: float
    forgetting: float
    backward: float
    lost: float
    matched_lost: float
    matched_share: float
    matched_right: float


def accuracy_matrix(answers: Sequence[Answers], targets: Answers, tests: Sequence[Answers]) -> npt.NDArray[np.float64]:
    """Accuracy after each part (row) on each task (column); nothing is left out."""
    return np.array([[float((given[test] == targets[test]).mean()) for test in tests] for given in answers])


def retention(
    answers: Sequence[Answers],
    matched: Sequence[Mask],
    targets: Answers,
    tests: Sequence[Answers],
    known: Sequence[int],
) -> Retention:
    """Judge the answers that one method gave to the same test examples after each part.

    Parameters
    ----------
    answers : sequence of int64 array of shape (example,)
        After each part.
    matched : sequence of bool array of shape (example,)
        Which of these answers were given as final; empty for a method that gives no such word.
    targets : int64 array of shape (example,)
        True labels of the test examples.
    tests : sequence of int64 array
        Rows of each task; one task a part.
    known : sequence of int
        How many of the tasks could be asked after each part.

    Returns
    -------
    Retention

    Notes
    -----
    Forgetting and backward transfer: Chaudhry et al. (2018) and Lopez-Paz and Ranzato (2017). A task counts from its
    own part on, in a blurry stream too.
    """
    table = accuracy_matrix(answers, targets, tests)
    last = len(tests) - 1
    drops = [table[task : last + 1, task].max() - table[last, task] for task in range(last)]
    gains = [table[last, task] - table[task, task] for task in range(last)]
    asked = [np.concatenate(tests[:count]) for count in known]
    right_once = np.concatenate([test[answers[task][test] == targets[test]] for task, test in enumerate(tests[:last])])
    everything = np.concatenate(tests)
    matched_lost = matched_share = matched_right = float("nan")
    if matched:
        given = sum(int(it.sum()) for it in matched[:-1])
        changed = sum(
            int((mask & np.any([later != answers[part] for later in answers[part + 1 :]], axis=0)).sum())
            for part, mask in enumerate(matched[:-1])
        )
        at_end = everything[matched[-1][everything]]
        matched_lost = changed / given if given else 0.0
        matched_share = len(at_end) / len(everything)
        matched_right = float((answers[-1][at_end] == targets[at_end]).mean()) if len(at_end) else float("nan")
    return Retention(
        final=float((answers[-1][everything] == targets[everything]).mean()),
        average=float(np.mean([(given[it] == targets[it]).mean() for given, it in zip(answers, asked, strict=True)])),
        forgetting=float(np.mean(drops)),
        backward=float(np.mean(gains)),
        lost=float((answers[-1][right_once] != targets[right_once]).mean()) if len(right_once) else 0.0,
        matched_lost=matched_lost,
        matched_share=matched_share,
        matched_right=matched_right,
    )
