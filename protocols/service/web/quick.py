"""Plain requests for answers: handed to their routes at once, since finding those takes longer than the answers.

The framework looks through all routes, resolves what a route depends on and validates each part by itself: several
times what a small model takes. Here the same functions get the same arguments, and everything that is not plain goes
the ordinary way, untouched: options, other media types, whoever may not, and whatever is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.inbox.ingesting import ItemsIn, Receipts, ingest, request_key
from protocols.service.api.predicting import Inputs, ManyAnswers, predict
from protocols.service.api.problems import FORESEEN, respond
from protocols.service.callers import Role
from protocols.service.gate.credentials import one
from protocols.service.inbox.idempotency import LONGEST_KEY
from protocols.service.service import Service
from protocols.service.standards.open_inference import infer
from protocols.service.web.bodies import BODY
from protocols.service.web.timing import note

_PATH = re.compile(r"(/api/v1|/v2)/models/([A-Za-z0-9_.-]{1,128})/(predict|items|infer)")
_JSON = "application/json"
_ANSWERS, _RECEIPTS = TypeAdapter(ManyAnswers), TypeAdapter(Receipts)


@dataclass(frozen=True)
class _Asked:
    """A plain request: what its route needs of it."""

    service: Service
    model: ServedModel
    request: Request
    given: Any = None
    """Its body, where it is JSON of the route's form."""


async def _predict(it: _Asked) -> Response:
    found = await predict(it.service, it.model, it.given)
    return Response(_ANSWERS.dump_json(_ANSWERS.validate_python(found)), media_type=_JSON)


async def _ingest(it: _Asked) -> Response:
    scope = it.request.scope
    caller, key = scope["slots.caller"], _text(scope, b"idempotency-key")
    repeat = request_key(caller, scope, key, scope[BODY])
    found = await ingest(it.service, it.model, caller=caller, given=it.given, repeat=repeat)
    return Response(_RECEIPTS.dump_json(_RECEIPTS.validate_python(found)), media_type=_JSON)


async def _infer(it: _Asked) -> Response:
    json_bytes = _text(it.request.scope, b"inference-header-content-length")
    return await infer(it.service, it.model, it.request, json_bytes)


def _text(scope: Scope, header: bytes) -> str | None:
    value = one(scope["headers"], header)
    return None if value is None else value.decode("latin-1")


@dataclass(frozen=True)
class _Way:
    """A route that has a quick way."""

    template: str
    role: Role
    route: Callable[[_Asked], Awaitable[Response]]
    form: type[BaseModel] | None = None
    """Of its body; None where the route reads the body itself, whatever its media type."""
    keeps: bool = False
    """Whether it keeps something: not for a model that follows, and once for each ``Idempotency-Key``."""


_WAYS = {
    ("/api/v1", "predict"): _Way("/api/v1/models/{model}/predict", Role.READ, _predict, Inputs),
    ("/api/v1", "items"): _Way("/api/v1/models/{model}/items", Role.INGEST, _ingest, ItemsIn, keeps=True),
    ("/v2", "infer"): _Way("/v2/models/{model}/infer", Role.READ, _infer),
}


class Quick:
    """ASGI middleware behind `Guard` and `BoundedBodies`: answers plain requests, and hands on all others.

    Parameters
    ----------
    app : ASGIApp
        What stands behind: all routes.
    service : Service
        The running service.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request here if it is plain."""
        found = _PATH.fullmatch(scope["path"]) if BODY in scope and scope["method"] == "POST" else None
        way = None if found is None else _WAYS.get((found[1], found[3]))
        asked = None if way is None or found is None else self._asked(way, found[2], scope, receive)
        if way is None or asked is None:
            await self._app(scope, receive, send)
            return
        note(scope, way.template)
        try:
            answer = await way.route(asked)
        except Exception as error:
            await (await respond(asked.request, error))(scope, receive, send)
            if not isinstance(error, FORESEEN):
                raise
            return
        await answer(scope, receive, send)

    def _asked(self, way: _Way, name: str, scope: Scope, receive: Receive) -> _Asked | None:
        """The request if it is plain and its caller may; whatever it lacks, the route says it."""
        model, caller, headers = self._service.models.get(name), scope["slots.caller"], scope["headers"]
        if model is None or caller.role < way.role or caller.model not in (None, name) or scope["query_string"]:
            return None
        request = Request(scope, receive)
        if way.form is None:
            return _Asked(self._service, model, request)
        if one(headers, b"content-type") != _JSON.encode() or one(headers, b"x-request-timeout") is not None:
            return None
        key = one(headers, b"idempotency-key")
        if way.keeps and (name in self._service.followers or (key is not None and not 1 <= len(key) <= LONGEST_KEY)):
            return None
        try:
            given = way.form.model_validate(json.loads(scope[BODY]))
        except ValueError:  # no JSON, or of another form
            return None
        return _Asked(self._service, model, request, given)
