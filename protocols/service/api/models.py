"""Routes on the models themselves, and whether the service lives."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import ReadModel, TheCaller, TheService
from protocols.service.service import Service

router = APIRouter(prefix="/api/v1", tags=["models"])


class ModelFacts(BaseModel):
    """What a model is.

    Parameters
    ----------
    name : str
        How clients name it.
    generation : int
        The generation that answers now.
    kind : {"images", "features", "text"}
        What it takes.
    shape : list of int
        Of one input: (channel, height, width) of images, (feature) of rows; empty for texts.
    labels : list of str
        Names of the labels, by id.
    clusters : list of int
        Labels that stand for clusters nobody has named.
    slots : int
        Number of slots.
    knows_novelty : bool
        Whether it says how foreign inputs are.
    follows : bool
        Whether another service writes it; here it only answers.
    problem : str
        Why the newest generation does not answer here, or could not be published; empty if all is well.
    """

    name: str
    generation: int
    kind: Literal["images", "features", "text"]
    shape: list[int]
    labels: list[str]
    clusters: list[int]
    slots: int
    knows_novelty: bool
    follows: bool
    problem: str


@router.get("/models")
async def models(service: TheService, caller: TheCaller) -> list[ModelFacts]:
    """The models that the caller may use."""
    return [facts(service, it) for it in service.models.values() if caller.model in (None, it.name)]


@router.get("/models/{model}")
async def model(service: TheService, model: ReadModel) -> ModelFacts:
    """One model."""
    return facts(service, model)


def facts(service: Service, served: ServedModel) -> ModelFacts:
    """What a served model is."""
    current = served.current
    return ModelFacts(
        name=served.name,
        generation=current.generation,
        kind=current.model.preprocessing.kind,
        shape=list(current.model.preprocessing.shape),
        labels=list(current.names),
        clusters=sorted(current.model.clusters),
        slots=current.model.head.n_slots,
        knows_novelty=current.model.novelty is not None,
        follows=served.name in service.followers,
        problem=served.problem or service.replica_problem(served.name),
    )
