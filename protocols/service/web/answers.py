"""Answers that middleware gives before any route is reached, and the headers of every answer."""

from __future__ import annotations

import json

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocols.service.api.problems import Problem, body_of
from protocols.service.service import Service

ALWAYS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
"""Headers of every answer; the server sets them, so that those it gives itself have them too."""

_FILES = "/static/"  # the only answers that may be kept by the browser


async def answer(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer a request with a problem: as problem details, or in the form of the Open Inference Protocol under /v2."""
    document, media = body_of(problem, scope["path"])
    content = json.dumps(document).encode()
    headers = [(b"content-type", media.encode()), (b"content-length", str(len(content)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Headed:
    """ASGI middleware, outside all others: headers that depend on the answer.

    Parameters
    ----------
    app : ASGIApp
        What stands behind.
    service : Service
        Says whether it is ending: then connections are not kept.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and add to the answer what it lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not scope["path"].startswith(_FILES):
                    headers["Cache-Control"] = "no-store"
                # A page that sends no referrer to its own service sends no origin of its forms either.
                page = headers.get("content-type", "").startswith("text/html")
                headers["Referrer-Policy"] = "same-origin" if page else "no-referrer"
                if self._service.ending.is_set():
                    headers["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, headed)
