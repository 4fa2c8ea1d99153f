"""What the head answers: one dataclass, three honest kinds of answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Answer(IntEnum):
    """How sure an answer is, and why.

    The oldest generation that has a slot which fires gives the answer, and none after it is asked.

    ``MATCHED``: its slots of one label fire. ``AMBIGUOUS``: its slots of two or more labels fire; both are named.
    ``UNMATCHED``: no slot of any generation vouches for the input; the label is the pooled score's and the caller
    decides.
    """

    UNMATCHED = 0
    AMBIGUOUS = 1
    MATCHED = 2


_UNMATCHED, _AMBIGUOUS = int(Answer.UNMATCHED), int(Answer.AMBIGUOUS)  # an enumeration costs NumPy fifty times a number


@dataclass(frozen=True)
class Prediction:
    """The answers for a batch of inputs; all arrays have shape (example,).

    Parameters
    ----------
    labels : int64 array
        Predicted label.
    answers : int8 array
        `Answer` of each input.
    slots : int64 array
        The slot that gave the answer. Of an unmatched input: the most similar slot of the predicted label.
    margins : float64 array
        How deep the input lies inside that slot's two caps, in radians; negative outside, minus infinity of a slot
        that matches no input at all (it owns no example, or vouching left it no room).
    runner_up_slots : int64 array
        The best slot of another label (of a matched input: in the same generation); -1 where there is none.
    runner_up_margins : float64 array
        Margin of the runner-up, in radians; minus infinity where there is none, and as above.
    """

    labels: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int8]
    slots: npt.NDArray[np.int64]
    margins: npt.NDArray[np.float64]
    runner_up_slots: npt.NDArray[np.int64]
    runner_up_margins: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        """True where at least one slot fires (matched or ambiguous)."""
        return np.not_equal(self.answers, _UNMATCHED)

    @property
    def ambiguous(self) -> npt.NDArray[np.bool_]:
        """True where slots of two or more labels fire."""
        return np.equal(self.answers, _AMBIGUOUS)

    @staticmethod
    def concatenate(parts: list[Prediction]) -> Prediction:
        """Join the answers of consecutive batches; no parts give an empty prediction."""
        if len(parts) == 1:
            return parts[0]
        kinds = {"labels": np.int64, "answers": np.int8, "slots": np.int64, "margins": np.float64}
        kinds |= {"runner_up_slots": np.int64, "runner_up_margins": np.float64}
        return Prediction(
            **{
                name: np.concatenate([np.zeros(0, kind), *(getattr(p, name) for p in parts)]).astype(kind)
                for name, kind in kinds.items()
            }
        )


@dataclass(frozen=True)
class AnswerShares:
    """How many of some inputs got which kind of answer.

    Parameters
    ----------
    n_examples : int
        Inputs asked (count, >= 1).
    n_matched : int
        Those that slots of one label match.
    n_ambiguous : int
        Those that slots of two or more labels match.

    Examples
    --------
    >>> AnswerShares(200, n_matched=180, n_ambiguous=4).unmatched
    0.08
    """

    n_examples: int
    n_matched: int
    n_ambiguous: int

    @staticmethod
    def of(prediction: Prediction) -> AnswerShares:
        """Those of at least one answer."""
        ambiguous = int(prediction.ambiguous.sum())
        return AnswerShares(len(prediction), int(prediction.matched.sum()) - ambiguous, ambiguous)

    @property
    def matched(self) -> float:
        """Share that slots of one label match, in [0, 1]."""
        return self.n_matched / self.n_examples

    @property
    def ambiguous(self) -> float:
        """Share that slots of two or more labels match, in [0, 1]."""
        return self.n_ambiguous / self.n_examples

    @property
    def unmatched(self) -> float:
        """Share that no slot matches, in [0, 1]."""
        return (self.n_examples - self.n_matched - self.n_ambiguous) / self.n_examples


def changed_matched(before: Prediction, after: Prediction) -> npt.NDArray[np.int64]:
    """Rows that were matched before and whose answer is not the same in every field.

    Parameters
    ----------
    before, after : Prediction
        Of the same inputs.

    Returns
    -------
    int64 array
        Empty after every update; explicit edits may change answers.
    """
    fields = ("labels", "answers", "slots", "margins", "runner_up_slots", "runner_up_margins")
    same = np.ones(len(before), bool)
    for field in fields:
        same &= getattr(before, field) == getattr(after, field)
    return np.flatnonzero(before.matched & ~same)
