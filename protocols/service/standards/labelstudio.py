"""An ML backend of Label Studio: predictions for its tasks, its annotations as labels, its training as an update.

Label Studio sends the access token of its user with ``setup``. Nothing here reads it, so it is neither logged nor kept.
Pictures that a task names by an address are not fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from protocols.service.answering import contents
from protocols.service.answering.contents import Contents
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import LabelModel, ReadModel, TheCaller, TheService
from protocols.service.api.at_first import AtFirst
from protocols.service.api.inbox.ingesting import taken
from protocols.service.api.predicting import answered, as_rows
from protocols.service.callers import Caller
from protocols.service.inbox import acts, items, reviews
from protocols.service.inbox.labels import Person
from protocols.service.inbox.refusals import MissingError
from protocols.service.jobs.child.material import as_inputs
from protocols.service.jobs.runner import Refused
from protocols.service.service import Service
from protocols.service.settings import Policy
from protocols.service.standards import labelstudio_tasks as tasks
from protocols.service.standards.labelstudio_tasks import Interface
from slots.errors import DataError, SlotsError

router = APIRouter(prefix="/ls/{model}", tags=["label studio"])

_PATIENCE = 0.5  # seconds; Label Studio gives a webhook one in all
_LABELLED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})
_MOST_TASKS = 1000


class Task(BaseModel):
    """A task; what else Label Studio sends is left out.

    Parameters
    ----------
    id : int or str or None
        Its number there.
    data : dict
        Its data.
    """

    model_config = ConfigDict(extra="ignore")

    id: int | str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Setup(BaseModel):
    """What a project is set up with.

    Parameters
    ----------
    schema : str
        Its labelling configuration.
    """

    model_config = ConfigDict(extra="ignore")

    label_config: str = Field("", alias="schema", max_length=1 << 20)


class Validation(BaseModel):
    """A labelling configuration that shall be checked.

    Parameters
    ----------
    config : str
        It.
    """

    model_config = ConfigDict(extra="ignore")

    config: str = Field("", max_length=1 << 20)


class Asked(BaseModel):
    """Tasks that shall get predictions.

    Parameters
    ----------
    tasks : list of Task
        Up to 1,000.
    label_config : str or None
        The project's.
    """

    model_config = ConfigDict(extra="ignore")

    tasks: Annotated[list[Task], AtFirst()] = Field(max_length=_MOST_TASKS)
    label_config: str | None = Field(None, max_length=1 << 20)


class Told(BaseModel):
    """What a webhook tells.

    Parameters
    ----------
    action : str
        What happened there.
    task : Task or None
        Which task it happened to.
    annotation : dict or None
        What somebody said of it.
    project : dict or None
        Where.
    """

    model_config = ConfigDict(extra="ignore")

    action: str = Field("", max_length=256)
    task: Task | None = None
    annotation: dict[str, Any] | None = None
    project: dict[str, Any] | None = None


@router.get("")
@router.get("/health")
async def health(model: ReadModel) -> dict[str, str]:
    """The backend answers."""
    return {"status": "UP", "model_class": f"slots/{model.name}"}


@router.get("/versions")
async def versions(model: ReadModel) -> dict[str, list[str]]:
    """The generation that answers."""
    return {"versions": [str(model.current.generation)]}


@router.post("/setup")
async def setup(model: ReadModel, given: Setup) -> dict[str, str]:
    """Whether the project's configuration can be answered; the access token that comes with it is not read."""
    Interface.parse(given.label_config)
    return {"model_version": str(model.current.generation)}


@router.post("/validate")
async def validate(model: ReadModel, given: Validation) -> dict[str, Any]:
    """Whether a configuration can be answered."""
    del model
    Interface.parse(given.config)
    return {"valid": True}


@router.get("/config", response_class=Response, responses={200: {"content": {"application/xml": {}}}})
async def config(model: ReadModel) -> Response:
    """A labelling configuration for the model, to be pasted into a project."""
    return Response(tasks.config(model.current.model, model.current.names), media_type="application/xml")


@router.post("/predict")
async def predict(service: TheService, model: ReadModel, given: Asked) -> dict[str, Any]:
    """Predictions for tasks, in their order; tasks without anything to answer get none."""
    interface = Interface.parse(given.label_config or "")
    found = await asyncio.gather(*(_predicted(service, model, task, interface) for task in given.tasks))
    return {"results": found, "model_version": str(model.current.generation)}


@router.post("/webhook")
async def webhook(
    service: TheService, model: LabelModel, *, caller: TheCaller, given: Told, response: Response
) -> dict[str, Any]:
    """Take an annotation as a label, or begin an update; what takes long goes on after the answer (202)."""
    if given.action == "START_TRAINING":
        with contextlib.suppress(Refused):  # an update waits already, or there is no room: Label Studio may ask again
            arguments = {"dry_run": False, "spread": True, "budget": None}
            job = await service.jobs.submit(model, "update", arguments, caller=caller)
            return {"job": job.number}
        response.status_code = 503
        return {"job": None}
    if given.action not in _LABELLED or given.task is None or given.annotation is None:
        return {"labelled": False}  # it tells of everything; deleted annotations say nothing of what is right
    label = tasks.chosen(given.annotation)
    if label is None:
        return {"labelled": False}
    work = _label(service, model, caller, given, label)
    response.status_code, done = await _begun(service, work)
    return {"labelled": done}


@router.get("/tasks")
async def export(
    service: TheService,
    model: ReadModel,
    review: Annotated[int | None, Query(ge=0, le=2**62, description="A query list; the newest if left out.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Groups, at most.")] = 100,
    members: Annotated[int, Query(ge=1, le=100, description="Items of each group, at most.")] = 1,
) -> list[dict[str, Any]]:
    """A query list as tasks with predictions, those whose label covers most first, for import into a project."""

    def work(connection: Connection) -> list[dict[str, Any]]:
        chosen = reviews.newest(connection, model.name) if review is None else reviews.find(connection, review)
        if chosen.model != model.name:
            raise MissingError(f"{model.name!r} has no query list {review}. Ask for the newest.")
        found = reviews.groups(connection, chosen.number, state="open", limit=limit, members=members)
        known = items.numbered(connection, model.name, [it for group in found for it in group.members])
        made = []
        for group in found:
            for it in (known[number] for number in group.members if number in known):
                content = items.content(connection, service.inbox.blobs, it.number)
                data = tasks.task_of(it, content, model.current.model) | {"covers": group.gain, "group": group.number}
                made.append({"data": data, "predictions": [tasks.prediction(vars(it), it.generation, Interface())]})
        return made

    return await service.database.read(work)


async def _predicted(service: Service, model: ServedModel, task: Task, interface: Interface) -> dict[str, Any]:
    """The prediction for one task; what cannot be read gets an empty one."""
    empty = {"model_version": str(model.current.generation), "score": 0.0, "result": []}
    try:
        several = await _content(service, model, task, interface)
    except SlotsError:
        return empty
    if several is None:
        return empty
    found = await answered(service, model, several.x, again=True)
    (answer,) = as_rows(found)
    p_value = None if answer["novelty"] is None else answer["novelty"]["p_value"]
    return tasks.prediction({**answer, "p_value": p_value}, found.loaded.generation, interface)


async def _content(service: Service, model: ServedModel, task: Task, interface: Interface) -> Contents | None:
    """What a task shows: an item of the inbox, or what its data hold."""
    loaded, limits = model.current.model, service.settings.limits
    item_id = task.data.get(tasks.ITEM)
    if isinstance(item_id, str):
        file, media = await service.database.read(lambda it: _stored(it, service, model.name, item_id))
        x = await service.decoders.run(loaded, lambda: as_inputs(loaded, [file]))
        return Contents(x, [file], [media])
    given = tasks.task_input(loaded, task.data, interface)
    if given is None:
        return None
    return await service.decoders.run(loaded, lambda: contents.contents(loaded, [given], limits))


def _stored(connection: Connection, service: Service, model: str, item_id: str) -> tuple[bytes, str]:
    found = items.find(connection, model, item_id)
    return items.content(connection, service.inbox.blobs, found.number), found.media


async def _label(service: Service, model: ServedModel, caller: Caller, told: Told, label: str) -> None:
    """Label the item behind a task; what Label Studio alone has becomes an item first."""
    assert told.task is not None
    assert told.annotation is not None
    project = told.project or {}
    item_id = told.task.data.get(tasks.ITEM)
    if not isinstance(item_id, str):
        words = project.get("label_config")
        interface = Interface.parse(words if isinstance(words, str) else "")
        several = await _content(service, model, told.task, interface)
        if several is None:
            raise DataError("The task holds nothing that the model takes: pictures behind addresses are not fetched.")
        item_id = f"labelstudio/{project.get('id')}/{told.task.id}"
        await taken(service, model, caller, several, ids=[item_id], policy=Policy.parse("all", Policy()))
    person = Person(caller.key_id, f"{caller.name}/{_annotator(told.annotation)}"[:128], "labelstudio")

    def work(connection: Connection) -> None:
        number = items.find(connection, model.name, item_id).number
        acts.label_items(connection, model.name, {number: label}, person, {number: True})

    await service.database.write(work)


def _annotator(annotation: dict[str, Any]) -> int:
    """Number of the person there who annotated; 0 where it is not said."""
    by = annotation.get("completed_by")
    by = by.get("id") if isinstance(by, dict) else by
    return by if isinstance(by, int) and 0 <= by < 2**53 else 0


async def _begun(service: Service, work: Coroutine[Any, Any, None]) -> tuple[int, bool]:
    """Begin something and wait for it as long as Label Studio does: status, and whether it is done."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=_PATIENCE)
    if done:
        task.result()  # its error is the answer
        return 200, True
    service.later(_suppressed(task))
    return 202, False


async def _suppressed(task: asyncio.Future[None]) -> None:
    with contextlib.suppress(SlotsError):
        await task
