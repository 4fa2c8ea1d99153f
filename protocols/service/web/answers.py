"""Answers that middleware gives before any route is reached, and the headers of every answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

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

_LOG = logging.getLogger("uvicorn.error")  # where the server would tell of it

_FILES = "/static/"  # the only answers that may be kept by the browser


Header = tuple[bytes, bytes]


async def answer(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer a request with a problem: as problem details, or in the form of the Open Inference Protocol under /v2."""
    headers, content = _parts(problem, scope["path"])
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def come_again(scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI application for whoever comes while there are too many connections, and all are being answered."""
    problem = Problem(
        503, "As many connections are open as there may be. Come again in a second.", {"Retry-After": "1", **_APART}
    )
    await answer(scope, send, problem)


def refusal(status: int, always: Iterable[Header]) -> bytes:
    """A whole answer, as it goes over the wire, to what is no request.

    Parameters
    ----------
    status : {400, 431}
        HTTP status.
    always : iterable of pairs of bytes
        Headers of every answer.

    Returns
    -------
    bytes
    """
    headers, content = _parts(Problem(status, _REFUSALS[status], _APART), "")
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
    lines = [first, *(name + b": " + value for name, value in (*always, *headers)), b"", content]
    return b"\r\n".join(lines)


_APART = {"Connection": "close", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
"""Of answers that `Headed` does not see."""

_REFUSALS = {
    400: "This is no HTTP request, or too many were sent before the answer to the first. Send another.",
    431: "The request line and the headers may have 65536 bytes; what else is not the body, as many more as the body. "
    "Send less.",
}


def _parts(problem: Problem, path: str) -> tuple[list[Header], bytes]:
    """Headers and content of a problem."""
    document, media = body_of(problem, path)
    content = json.dumps(document).encode()
    headers = [(b"content-type", media.encode()), (b"content-length", str(len(content)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return headers, content


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

        answered = False

        async def headed(message: Message) -> None:
            nonlocal answered
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
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, headed)
        except Exception:
            # The framework answers 500 and raises again; the server would then close a connection whose client was just
            # told that it may go on with it.
            if not answered:
                raise
            _LOG.exception("An unexpected error; the request was answered")
