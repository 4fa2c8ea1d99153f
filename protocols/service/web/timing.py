"""How long requests take, by the template of their route: a path itself may be anything."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"
"""The route of requests that no route took, and the method of those that have a strange one."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_KEY = "slots.route"


class Timed:
    """ASGI middleware that stands before all others: tells how long each request waited for its answer to begin.

    Parameters
    ----------
    app : ASGIApp
        What stands behind; `NotedRoute` as the last.
    told : callable
        ``told(method, route, status, seconds)``: status is that of HTTP, 499 where the client went away.
    """

    def __init__(self, app: ASGIApp, told: Callable[[str, str, int, float], None]) -> None:
        self._app, self._told = app, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and tell when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, seconds = time.monotonic(), 499, 0.0
        noted: dict[str, str] = {}

        async def noting(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.monotonic() - began
            await send(message)

        try:
            await self._app({**scope, _KEY: noted}, receive, noting)
        except Exception:
            status = status if seconds else 500  # the server answers it, outside of all middleware
            raise
        finally:
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            self._told(method, noted.get("route", OTHER), status, seconds or time.monotonic() - began)


def note(scope: Scope, template: str) -> None:
    """Note which route takes a request."""
    if _KEY in scope:
        scope[_KEY]["route"] = template


class NotedRoute:
    """ASGI middleware that stands after all others: notes which route took the request.

    Parameters
    ----------
    app : ASGIApp
        The router.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and note the route that the router chose."""
        try:
            await self._app(scope, receive, send)
        finally:
            template = getattr(scope.get("route"), "path", None)
            if template is not None:
                note(scope, template)
