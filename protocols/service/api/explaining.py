"""The route that explains: an answer with the slot, the remembered examples and the other label behind it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, TypeAdapter

from protocols.service.answering.explaining import Explanation, explanation
from protocols.service.api.access import ReadModel, TheService
from protocols.service.api.predicting import Inputs, OneAnswer, Rate, Rows, Texts, Timeout, answered, as_rows, read_json

router = APIRouter(prefix="/api/v1/models/{model}", tags=["answers"])

MOST = 16
"""Inputs explained in one request at most: each answer brings pictures."""


class FewInputs(Inputs):
    """Inputs of a request; at most 16, since each answer brings pictures."""

    inputs: Annotated[Rows | Texts, Field(min_length=1, max_length=MOST)]


class Explained(OneAnswer):
    """An answer and why it was given.

    Parameters
    ----------
    why : Explanation
        The slots behind the answer.
    """

    why: Explanation


class ManyExplained(BaseModel):
    """The explained answers to the inputs of a request, all by one generation.

    Parameters
    ----------
    model : str
        The model that answered.
    generation : int
        Its generation.
    answers : list of Explained
        In the order of the inputs.
    """

    model: str
    generation: int
    answers: list[Explained]


@router.post("/explain", response_model=ManyExplained)
async def explain(
    service: TheService, model: ReadModel, given: FewInputs, rate: Rate = None, timeout: Timeout = None
) -> Any:
    """Answer inputs, and say why: the slot behind the answer, its remembered examples, the nearest foreign slot."""
    x = await read_json(service, model, given.inputs)
    found = await answered(service, model, x, rate, timeout, again=True)
    as_json = TypeAdapter(Explanation)
    answers = [
        {**row, "why": as_json.dump_python(explanation(found, place))} for place, row in enumerate(as_rows(found))
    ]
    return {"model": model.name, "generation": found.loaded.generation, "answers": answers}
