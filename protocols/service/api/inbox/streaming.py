"""The route that takes items without end: a line each, and for each a receipt when it is on the disk."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from protocols.service.answering import contents
from protocols.service.answering.batching import Overloaded
from protocols.service.answering.contents import Contents
from protocols.service.answering.lines import Line, Lines
from protocols.service.answering.loaded import Answers
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import Caller, IngestModel, TheCaller, TheService
from protocols.service.api.inbox.ingesting import arrivals, chosen_policy, read_inputs
from protocols.service.api.json_bounds import check_json
from protocols.service.api.predicting import answered, as_rows
from protocols.service.api.problems import Problem, document_of, problem_of
from protocols.service.inbox.refusals import check_item_id
from protocols.service.inbox.storing import Delivery
from protocols.service.service import Service
from protocols.service.settings import Limits, Policy
from slots.errors import DataError, SlotsError

router = APIRouter(prefix="/api/v1/models/{model}/items", tags=["items"])

_TOGETHER = 64  # lines that are answered and committed together, at most
_BUSY_SECONDS = 0.02  # before a stream tries again whether the model has room for its lines
_NDJSON = "application/x-ndjson"
_FORM = {
    "requestBody": {
        "required": True,
        "content": {_NDJSON: {"schema": {"type": "string", "description": 'Lines of {"input": ..., "id": ...}.'}}},
    },
    "responses": {"200": {"description": "A receipt a line.", "content": {_NDJSON: {"schema": {"type": "string"}}}}},
}


@router.post("/stream", response_class=Response, openapi_extra=_FORM)
async def ingest_stream(
    service: TheService,
    model: IngestModel,
    caller: TheCaller,
    store: Annotated[str | None, Query(max_length=100, description="What is kept, as in POST /items.")] = None,
) -> Response:
    """Answer and keep items that come one a line; each has its receipt, a line too, when it is on the disk."""
    return _Receipts(_Taking(service, model, caller, chosen_policy(service.settings.keeping, store)))


@dataclass(frozen=True)
class _Sent:
    """An input of a line, and its id if it has one."""

    line: int
    id: str | None
    given: Any


@dataclass(frozen=True)
class _Refused:
    """A line that is not taken, and why."""

    line: int
    id: str | None
    problem: Problem

    def receipt(self) -> dict[str, Any]:
        return {"line": self.line, "id": self.id, "fate": "refused", "problem": document_of(self.problem)}


class _Taking:
    """Takes the lines of one stream, some at a time.

    Parameters
    ----------
    service : Service
        The running service.
    model : ServedModel
        Who answers.
    caller : Caller
        Who sends them.
    policy : Policy
        Which are kept.
    """

    def __init__(self, service: Service, model: ServedModel, caller: Caller, policy: Policy) -> None:
        self.service, self._model, self._caller, self._policy = service, model, caller, policy
        limits = service.settings.limits
        features = model.current.model.preprocessing.kind == "features"
        self.together = min(_TOGETHER, limits.rows if features else limits.images)

    async def receipts(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Answer some lines and keep them: the receipt of each, in their order, when all are committed."""
        read = [_sent(line, self.service.settings.limits) for line in lines]
        found = [it.receipt() for it in read if isinstance(it, _Refused)]
        sent = [it for it in read if isinstance(it, _Sent)]
        if sent:
            several, sent, refused = await self._contents(sent)
            found += [it.receipt() for it in refused]
            if several is not None:
                try:
                    found += await self._kept(several, sent)
                except Exception as error:  # noqa: BLE001  # the lines are told, and the stream goes on
                    problem = problem_of(error)
                    found += [_Refused(it.line, it.id, problem).receipt() for it in sent]
        return sorted(found, key=lambda receipt: int(receipt["line"]))

    async def _contents(self, sent: list[_Sent]) -> tuple[Contents | None, list[_Sent], list[_Refused]]:
        """Inputs of all lines at once; where one is wrong each alone, to know which. With those that could be read."""
        try:
            return await read_inputs(self._model, [it.given for it in sent], self.service), sent, []
        except SlotsError:
            pass
        good: list[tuple[_Sent, Contents]] = []
        refused = []
        for it in sent:
            try:
                good.append((it, await read_inputs(self._model, [it.given], self.service)))
            except SlotsError as error:
                refused.append(_Refused(it.line, it.id, problem_of(error)))
        if not good:
            return None, [], refused
        several = contents.Contents(
            np.concatenate([one.x for _, one in good]),
            [file for _, one in good for file in one.files],
            [media for _, one in good for media in one.media],
        )
        return several, [it for it, _ in good], refused

    async def _kept(self, several: Contents, sent: list[_Sent]) -> list[dict[str, Any]]:
        """Answer and keep inputs; an id that has another content already refuses its own line alone."""
        found = await self._answered(several)
        answers, generation = as_rows(found), found.loaded.generation
        ids = [it.id for it in sent]
        made = arrivals(several, answers, ids, self._policy, self.service.settings.keeping)
        delivery = Delivery(self._model.name, generation, time.time(), self._caller.key_id, made, each=True)
        receipt = await self.service.inbox.store(delivery)
        told = []
        for it, arrival, fate, answer in zip(sent, made, receipt.fates, answers, strict=True):
            if fate == "conflict":
                said = f"The id {arrival.id!r} has another content already. Take another id, or delete the item."
                told.append(_Refused(it.line, arrival.id, Problem(409, said)).receipt())
            else:
                told.append(
                    {"line": it.line, "id": arrival.id, "fate": fate, "generation": generation, "answer": answer}
                )
        return told

    async def _answered(self, several: Contents) -> Answers:
        """Answers of the model; a stream is not refused where it is busy, it goes as fast as the model has room."""
        while True:
            try:
                return await answered(self.service, self._model, several.x)
            except Overloaded:
                await asyncio.sleep(_BUSY_SECONDS)


class _Receipts(Response):
    """Reads the request's lines and answers them, at once and in turns.

    Nothing is read before the receipts of what was read are on their way to the client: one that does not read its
    receipts is not read from either, and costs no more memory than its lines of one turn.
    """

    def __init__(self, taking: _Taking) -> None:
        super().__init__(media_type=_NDJSON)
        self._taking = taking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take lines until the client ends, goes away or falls silent, or the service stops."""
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise Problem(415, "A stream must come without Content-Encoding. Send it plain.")
        start = [(b"content-type", _NDJSON.encode()), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        service, together = self._taking.service, self._taking.together
        limits = service.settings.limits
        lines = Lines(limits.body)
        last: Problem | None = None
        try:
            async for several in _turns(lines, receive, limits.request_seconds):
                for first in range(0, len(several), together):
                    receipts = await self._taking.receipts(several[first : first + together])
                    await send(_body(receipts))
                if service.ending.is_set():
                    last = Problem(503, "The service is stopping. Send this line and those after it again.")
                    break
        except TimeoutError:
            last = Problem(408, f"No whole line came for {limits.request_seconds:g} seconds. Send a blank one to wait.")
        except _GoneError:
            return
        rest = [] if last is None else [_Refused(lines.ended + 1, None, last).receipt()]
        await send(_body(rest, more=False))


class _GoneError(Exception):
    """The client went away."""


async def _turns(lines: Lines, receive: Receive, seconds: float) -> AsyncIterator[list[Line]]:
    """The lines that are there each time that somebody looks; blank ones are left out.

    Raises
    ------
    TimeoutError
        If none ended for so many seconds.
    _GoneError
        If the client went away.
    """
    more = True
    while more:
        found: list[Line] = []
        async with asyncio.timeout(seconds):
            while more and not found:
                message: Message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                found = lines.feed(message.get("body", b""))
                more = message.get("more_body", False)
        found += [] if more else lines.end()
        yield [it for it in found if not it.blank]


def _sent(line: Line, limits: Limits) -> _Sent | _Refused:
    """What a line says."""
    if line.content is None:
        return _Refused(line.number, None, Problem(413, f"A line may have {limits.body} bytes. Send smaller inputs."))
    try:
        said = _read_json(line.content, limits)
    except Problem as problem:
        return _Refused(line.number, None, problem)
    if not isinstance(said, dict) or "input" not in said or not said.keys() <= {"input", "id"}:
        wrong = 'A line must be {"input": ...}, and may have an "id"; got something else. Send one item a line.'
        return _Refused(line.number, None, Problem(422, wrong))
    item_id = said.get("id")
    if item_id is not None and not isinstance(item_id, str):
        wrong = f"`id` must be a text or null, got {type(item_id).__name__}. Leave it out, and the digest is taken."
        return _Refused(line.number, None, Problem(422, wrong))
    try:
        return _Sent(line.number, None if item_id is None else check_item_id(item_id), said["input"])
    except DataError as error:
        return _Refused(line.number, item_id, problem_of(error))


def _read_json(content: bytes, limits: Limits) -> Any:
    check_json(content, limits)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "A line must be one JSON object in UTF-8. Send one item a line.") from error


def _body(receipts: Sequence[dict[str, Any]], *, more: bool = True) -> Message:
    content = "".join(json.dumps(it, separators=(",", ":"), ensure_ascii=False) + "\n" for it in receipts)
    return {"type": "http.response.body", "body": content.encode(), "more_body": more}
