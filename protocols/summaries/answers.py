"""What ``slots explain MODEL IMAGE`` prints as JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExplainedPart:
    """One part of an answer.

    Parameters
    ----------
    part : int
        Its number in the model.
    box : tuple of four int
        Top, left, bottom and right of the pixels where it was found, in the size that the model sees.
    share : float
        What it adds to the slot's cosine.
    source : tuple of three int or None
        Training example, and top and left pixel of the patch that the part is.
    """

    part: int
    box: tuple[int, int, int, int]
    share: float
    source: tuple[int, int, int] | None


@dataclass(frozen=True)
class ExplainedAnswer:
    """An answer and why.

    Parameters
    ----------
    name, label, answer : str
        Of the input; its class; matched, ambiguous or unmatched.
    slot : int
        The slot that gave the answer.
    exemplar : int
        Training example nearest to the slot; -1 where it remembers none.
    rival, rival_slot : str or None, int
        The class that came next, and its slot; None and -1 where there is none.
    parts_of : int
        The slot that is taken apart: a trained one of the same label where a single example answered.
    cosine : float or None
        Of that slot and the input, which the shares of the parts add up to; None where the model has no parts.
    parts : tuple of ExplainedPart
        Largest share first; empty where the model has no parts.
    """

    name: str
    label: str
    answer: str
    slot: int
    exemplar: int
    rival: str | None
    rival_slot: int
    parts_of: int
    cosine: float | None
    parts: tuple[ExplainedPart, ...]


@dataclass(frozen=True)
class AnswersSummary:
    """What was explained, and where the page is.

    Parameters
    ----------
    schema : int
        Version of this record as JSON.
    model, page : str
        The folder, and the page.
    answers : tuple of ExplainedAnswer
        One for each input, in their order.
    """

    schema: int
    model: str
    page: str
    answers: tuple[ExplainedAnswer, ...]
