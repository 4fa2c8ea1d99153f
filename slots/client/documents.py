"""What a service answers, as records. Members that a newer service adds are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True)
class ServedAnswer:
    """The answer to one input.

    Parameters
    ----------
    label : str
        Name of the predicted label.
    label_id : int
        Its id.
    answer : str
        ``matched``, ``ambiguous`` or ``unmatched``.
    slot : int
        The slot that gave the answer; slot numbers belong to a generation.
    margin : float or None
        How deep the input lies inside its cap (radians); None where that slot matches no input at all.
    runner_up : str or None
        Label of the best slot of another label.
    runner_up_margin : float or None
        Its margin (radians).
    p_value : float or None
        Share of familiar inputs at least as foreign, in (0, 1]; None where the model has no calibration.
    score : float or None
        Higher = more novel; to six decimals.
    novel : bool or None
        Whether the p-value is at most the false-alarm rate.
    reason : str or None
        Which test gave the score.
    """

    label: str
    label_id: int
    answer: str
    slot: int
    margin: float | None
    runner_up: str | None = None
    runner_up_margin: float | None = None
    p_value: float | None = None
    score: float | None = None
    novel: bool | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ServedSlot:
    """A slot of the model that answers.

    Parameters
    ----------
    slot, generation : int
        Its number, and the generation of the model that the number belongs to.
    label : str
        Name of its label.
    label_id : int
        Id of its label.
    made_by : int
        Generation that made it.
    precision, support : float or None
        Radii of its caps (degrees); None for one without limit.
    hits : int
        Training examples that it matches (count).
    held_out, held_out_right : int
        Held-out examples that it matched, and those of its label (count).
    lately : int
        How many of the service's latest answers it gave (count).
    """

    slot: int
    generation: int
    label: str
    label_id: int
    made_by: int
    precision: float | None
    support: float | None
    hits: int
    held_out: int
    held_out_right: int
    lately: int


@dataclass(frozen=True)
class ServedAnswers:
    """The answers to the inputs of a request, all by one generation.

    Parameters
    ----------
    model : str
        The model that answered.
    generation : int
        Its generation.
    answers : tuple of ServedAnswer
        In the order of the inputs.
    """

    model: str
    generation: int
    answers: tuple[ServedAnswer, ...]

    @property
    def labels(self) -> list[str]:
        """The predicted labels."""
        return [it.label for it in self.answers]

    @property
    def matched(self) -> list[bool]:
        """Whether a slot vouches for each."""
        return [it.answer == "matched" for it in self.answers]


@dataclass(frozen=True)
class ItemReceipt:
    """What became of one input that was sent to be kept.

    Parameters
    ----------
    id : str
        Its id.
    fate : str
        ``stored`` (it is on the disk), ``there`` (it was stored before) or ``passed`` (answered only).
    answer : ServedAnswer
        The answer it got.
    """

    id: str
    fate: str
    answer: ServedAnswer


@dataclass(frozen=True)
class StreamReceipt:
    """What became of one item of a stream.

    Parameters
    ----------
    place : int
        Its place in the stream, from 0 on.
    id : str or None
        Its id; None where the service could not find out.
    fate : str
        ``stored`` (it is on the disk), ``there`` (it was stored before), ``passed`` (answered only) or ``refused``.
    generation : int or None
        Of the model that answered; None where it was refused.
    answer : ServedAnswer or None
        The answer it got; None where it was refused.
    problem : str or None
        Why it was refused; None where it was not.
    """

    place: int
    id: str | None
    fate: str
    generation: int | None = None
    answer: ServedAnswer | None = None
    problem: str | None = None


@dataclass(frozen=True)
class StoredItem:
    """An item of the inbox.

    Parameters
    ----------
    number : int
        Ascends in the order in which items came in.
    id : str
        Its id.
    answer : str
        ``matched``, ``ambiguous`` or ``unmatched``.
    label : str
        What was predicted.
    slot, generation : int
        What answered.
    margin : float or None
        How deep the item lies in the slot's cap (radians); None where that slot matches no input at all.
    p_value : float or None
        How foreign it is.
    state : str
        ``open``, ``labelled``, ``learned`` or ``set_aside``.
    media : str
        Media type of its content.
    """

    number: int
    id: str
    answer: str
    label: str
    slot: int
    generation: int
    margin: float | None
    p_value: float | None
    state: str
    media: str


@dataclass(frozen=True)
class Group:
    """Items to label at once.

    Parameters
    ----------
    number : int
        Of the group; `Client.label` takes it.
    place : int
        0 covers most.
    gain : int
        Items it covers that no group before it does.
    state : str
        ``open``, ``labelled`` or ``skipped``.
    size : int
        Number of its items.
    members : tuple of StoredItem
        The first of them, the one to look at first.
    doubted : bool
        Whether slots match its items, and all that was told before contradicts them; else no slot matches any.
    """

    number: int
    place: int
    gain: int
    state: str
    size: int
    members: tuple[StoredItem, ...]
    doubted: bool = False


@dataclass(frozen=True)
class Job:
    """Work that takes longer than a request.

    Parameters
    ----------
    id : int
        Its number.
    kind : str
        What is done.
    state : str
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    step : str
        What is being done.
    share : float
        How much of it is done, in [0, 1].
    result : dict or None
        Of a job that is done, as the service's OpenAPI document describes it.
    error : dict or None
        Problem details of one that failed.
    """

    id: int
    kind: str
    state: str
    step: str
    share: float
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state not in ("queued", "running")


def record(kind: type[Record], document: Mapping[str, Any], **more: Any) -> Record:
    """A record of a JSON object; what the record does not have is left out, and ``more`` replaces members."""
    known = {it.name for it in fields(kind)}  # type: ignore[arg-type]  # a dataclass, which mypy cannot bound
    return kind(**{name: value for name, value in {**document, **more}.items() if name in known})


def served_answer(document: Mapping[str, Any]) -> ServedAnswer:
    """One answer of a JSON object."""
    return record(ServedAnswer, {**document, **(document.get("novelty") or {})})


def stream_receipt(document: Mapping[str, Any], place: int) -> StreamReceipt:
    """One receipt of a JSON object."""
    answer, problem = document.get("answer"), document.get("problem")
    return record(
        StreamReceipt,
        document,
        place=place,
        answer=None if answer is None else served_answer(answer),
        problem=None if problem is None else str(problem["detail"]),
    )


def group(document: Mapping[str, Any]) -> Group:
    """One group of a JSON object."""
    return record(Group, document, members=tuple(record(StoredItem, it) for it in document["members"]))
