"""Routes that answer: predict and novelty."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy.typing as npt
from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, Field

from protocols.service.answering import inputs
from protocols.service.answering.loaded import Answers
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import ReadModel, TheService
from protocols.service.api.at_first import AtFirst
from protocols.service.api.problems import Problem
from protocols.service.service import Service
from slots.head.prediction import Answer

router = APIRouter(prefix="/api/v1/models/{model}", tags=["answers"])

KINDS: dict[int, Literal["matched", "ambiguous", "unmatched"]] = {
    Answer.MATCHED: "matched",
    Answer.AMBIGUOUS: "ambiguous",
    Answer.UNMATCHED: "unmatched",
}
"""Kinds of answers as clients read them."""


Rows = Annotated[list[Annotated[list[float], AtFirst()]], AtFirst()]
"""Rows of numbers."""

Texts = Annotated[list[str], AtFirst()]
"""Texts."""


class Inputs(BaseModel):
    """Inputs of a request.

    Parameters
    ----------
    inputs : list
        Rows of numbers, texts, or image files in base64, as the model's ``kind`` says.
    """

    inputs: Rows | Texts = Field(min_length=1)


class NoveltyAnswer(BaseModel):
    """How foreign an input is.

    Parameters
    ----------
    p_value : float
        Share of familiar inputs at least as foreign, in (0, 1].
    score : float
        Higher = more novel; to six decimals.
    novel : bool
        Whether the p-value is at most the false-alarm rate.
    reason : str
        Which test gave the score.
    """

    p_value: float
    score: float
    novel: bool
    reason: str


class OneAnswer(BaseModel):
    """The answer to one input.

    Parameters
    ----------
    label : str
        Name of the predicted label.
    label_id : int
        Its id.
    answer : {"matched", "ambiguous", "unmatched"}
        Whether a slot vouches for it.
    slot : int
        The slot that gave the answer.
    margin : float or None
        How deep the input lies inside its cap (radians); None where that slot matches no input at all.
    runner_up : str or None
        Label of the best slot of another label.
    runner_up_margin : float or None
        Its margin (radians), in the same way.
    novelty : NoveltyAnswer or None
        None where the model has no calibration.
    """

    label: str
    label_id: int
    answer: Literal["matched", "ambiguous", "unmatched"]
    slot: int
    margin: float | None
    runner_up: str | None
    runner_up_margin: float | None
    novelty: NoveltyAnswer | None


class ManyAnswers(BaseModel):
    """The answers to the inputs of a request, all by one generation.

    Parameters
    ----------
    model : str
        The model that answered.
    generation : int
        Its generation.
    answers : list of OneAnswer
        In the order of the inputs.
    """

    model: str
    generation: int
    answers: list[OneAnswer]


Rate = Annotated[float | None, Query(gt=0, lt=1, description="Share of familiar inputs that may be called novel.")]
Timeout = Annotated[
    float | None,
    Header(alias="X-Request-Timeout", gt=0, le=3600, description="Seconds after which the answer is of no use."),
]


@router.post("/predict", response_model=ManyAnswers)
async def predict(
    service: TheService, model: ReadModel, given: Inputs, rate: Rate = None, timeout: Timeout = None
) -> Any:
    """Answer inputs, and say how foreign they are."""
    x = await read_json(service, model, given.inputs)
    return as_document(model, await answered(service, model, x, rate, timeout))


@router.post("/predict/image", response_model=ManyAnswers)
async def predict_image(
    service: TheService, model: ReadModel, request: Request, rate: Rate = None, timeout: Timeout = None
) -> Any:
    """Answer one image: the request's body is the file."""
    if model.current.model.preprocessing.kind != "images":
        raise Problem(422, f"`{model.name}` takes {model.current.model.preprocessing.kind}, no images. Use /predict.")
    loaded, files = model.current.model, [await request.body()]
    x = await service.decoders.run(loaded, lambda: inputs.images(loaded, files, service.settings.limits))
    return as_document(model, await answered(service, model, x, rate, timeout))


async def read_json(service: Service, model: ServedModel, given: Sequence[Any]) -> npt.NDArray[Any]:
    """Inputs of a JSON list as the model takes them."""
    loaded = model.current.model
    return await service.decoders.run(loaded, lambda: inputs.from_json(loaded, given, service.settings.limits))


async def answered(
    service: Service,
    model: ServedModel,
    x: Any,
    rate: float | None = None,
    timeout: float | None = None,
    *,
    again: bool = False,
) -> Answers:
    """Answer inputs, at the service's rate where the client gives none."""
    deadline = None if timeout is None else time.monotonic() + timeout
    rate = rate or service.settings.false_alarm_rate
    return await model.answer(x, false_alarm_rate=rate, deadline=deadline, again=again)


def as_document(model: ServedModel, found: Answers) -> dict[str, Any]:
    """Answers as a JSON document of the form `ManyAnswers`."""
    return {"model": model.name, "generation": found.loaded.generation, "answers": as_rows(found)}


def as_rows(found: Answers) -> list[dict[str, Any]]:
    """Answers as JSON objects of the form `OneAnswer`, one an input."""
    names, of_slots, told = found.loaded.names, found.loaded.slot_names, found.prediction
    return [
        {
            "label": names[label],
            "label_id": label,
            "answer": KINDS[answer],
            "slot": slot,
            "margin": _finite(margin),
            "runner_up": None if other < 0 else of_slots[other],
            "runner_up_margin": None if other < 0 else _finite(other_margin),
            "novelty": novelty,
        }
        for label, answer, slot, margin, other, other_margin, novelty in zip(
            told.labels.tolist(),
            told.answers.tolist(),
            told.slots.tolist(),
            told.margins.tolist(),
            told.runner_up_slots.tolist(),
            told.runner_up_margins.tolist(),
            _novelty(found),
            strict=True,
        )
    ]


def _finite(margin: float) -> float | None:
    """JSON has no infinity: None of a slot that matches nothing."""
    return margin if math.isfinite(margin) else None


def _novelty(found: Answers) -> Sequence[dict[str, Any] | None]:
    it = found.novelty
    if it is None:
        return [None] * len(found.prediction)
    return [
        # What lies below six decimals of a score is rounding, and differs with the batch.
        {"p_value": chance, "score": round(score, 6), "novel": novel, "reason": str(reason)}
        for chance, score, novel, reason in zip(
            it.p_values.tolist(), it.scores.tolist(), it.novel.tolist(), it.reasons.tolist(), strict=True
        )
    ]
