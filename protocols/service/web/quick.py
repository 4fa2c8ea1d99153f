"""Plain requests to predict and to keep: handed to their routes at once, since finding those takes longer than answers.

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

from fastapi import Request
from pydantic import BaseModel, TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.inbox.ingesting import ItemsIn, Receipts, ingest, request_key
from protocols.service.api.predicting import Inputs, ManyAnswers, predict
from protocols.service.api.problems import FORESEEN, respond
from protocols.service.callers import Caller, Role
from protocols.service.gate.credentials import one
from protocols.service.inbox.idempotency import LONGEST_KEY
from protocols.service.service import Service
from protocols.service.web.bodies import BODY
from protocols.service.web.timing import note

_PATH = re.compile(r"/api/v1/models/([A-Za-z0-9_.-]{1,128})/(predict|items)")
_JSON = b"application/json"


@dataclass(frozen=True)
class _Asked:
    """A plain request: what its route needs of it."""

    service: Service
    model: ServedModel
    caller: Caller
    scope: Scope
    given: Any
    key: str | None
    """Its ``Idempotency-Key``."""


async def _predict(it: _Asked) -> Any:
    return await predict(it.service, it.model, it.given)


async def _ingest(it: _Asked) -> Any:
    repeat = request_key(it.caller, it.scope, it.key, it.scope[BODY])
    return await ingest(it.service, it.model, caller=it.caller, given=it.given, repeat=repeat)


@dataclass(frozen=True)
class _Way:
    """A route that has a quick way."""

    template: str
    role: Role
    form: type[BaseModel]
    route: Callable[[_Asked], Awaitable[Any]]
    answers: TypeAdapter[Any]
    keeps: bool = False
    """Whether it keeps something: not for a model that follows, and once for each ``Idempotency-Key``."""


_WAYS = {
    "predict": _Way("/api/v1/models/{model}/predict", Role.READ, Inputs, _predict, TypeAdapter(ManyAnswers)),
    "items": _Way("/api/v1/models/{model}/items", Role.INGEST, ItemsIn, _ingest, TypeAdapter(Receipts), keeps=True),
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
        way = None if found is None else _WAYS[found[2]]
        asked = None if way is None or found is None else self._asked(way, found[1], scope)
        if way is None or asked is None:
            await self._app(scope, receive, send)
            return
        note(scope, way.template)
        try:
            content = way.answers.dump_json(way.answers.validate_python(await way.route(asked)))
        except Exception as error:
            await (await respond(Request(scope), error))(scope, receive, send)
            if not isinstance(error, FORESEEN):
                raise
            return
        headers = [(b"content-length", str(len(content)).encode()), (b"content-type", _JSON)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _asked(self, way: _Way, name: str, scope: Scope) -> _Asked | None:
        """The request if it is plain and its caller may; whatever it lacks, the route says it."""
        model, caller, headers = self._service.models.get(name), scope["slots.caller"], scope["headers"]
        if model is None or caller.role < way.role or caller.model not in (None, name) or scope["query_string"]:
            return None
        if one(headers, b"content-type") != _JSON or one(headers, b"x-request-timeout") is not None:
            return None
        key = one(headers, b"idempotency-key")
        if way.keeps and (name in self._service.followers or (key is not None and not 1 <= len(key) <= LONGEST_KEY)):
            return None
        try:
            given = way.form.model_validate(json.loads(scope[BODY]))
        except ValueError:  # no JSON, or of another form
            return None
        return _Asked(self._service, model, caller, scope, given, None if key is None else key.decode("latin-1"))
