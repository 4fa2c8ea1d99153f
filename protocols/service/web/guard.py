"""The gate: who sends a request is known before its body is read."""

from __future__ import annotations

import math
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from protocols.service.api.problems import Problem
from protocols.service.callers import LOCAL, NOBODY, Caller
from protocols.service.gate import origins
from protocols.service.gate.buckets import Buckets
from protocols.service.gate.credentials import cookie, one, sent_key
from protocols.service.gate.keys import write_use
from protocols.service.service import Service
from protocols.service.web.answers import answer

OPEN = frozenset({"/api/v1/live", "/api/v1/ready", "/login"})
"""Paths that need no key."""

OPEN_UNDER = ("/v2/health/", "/static/")
"""What lies under these needs none either."""

_PROGRAMS = ("/api/", "/v2", "/ls/", "/metrics")  # paths that no browser is sent to the login from


class Guard:
    """ASGI middleware: sets ``scope["slots.caller"]``, or answers 401, 403 or 429.

    Parameters
    ----------
    app : ASGIApp
        What stands behind.
    service : Service
        Its keys and sessions.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._buckets = Buckets(service.settings.limits.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks, and hand on what they may ask."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._admitted(scope)
        except Problem as problem:
            if problem.status == 401 and _shows_pages(scope):
                await _to_login(scope, send)
            else:
                await answer(scope, send, problem)
            return
        await self._app({**scope, "slots.caller": caller}, receive, send)

    def _admitted(self, scope: Scope) -> Caller:
        """Who asks.

        Raises
        ------
        Problem
            If they may not.
        """
        headers, method, path = scope["headers"], scope["method"], scope["path"]
        if path in OPEN or path.startswith(OPEN_UNDER):
            if not origins.from_our_pages(headers, method, certain=False):
                raise _foreign()
            return NOBODY
        if not self._service.keys.needed:
            return _local(scope)
        key = sent_key(headers)
        caller = self._of_session(headers, method) if key is None else self._of_key(key)
        if caller is None:
            raise Problem(
                401,
                "This needs a key that is in use, as `Authorization: Bearer KEY` or `X-API-Key: KEY`. "
                "`slots keys add` makes one.",
                {"WWW-Authenticate": "Bearer"},
            )
        self._count(caller)
        return caller

    def _of_key(self, secret: bytes) -> Caller | None:
        found = self._service.keys.find(secret)
        return None if found is None else found[1]

    def _of_session(self, headers: list[tuple[bytes, bytes]], method: str) -> Caller | None:
        """Whose session it is; what it changes must come from a page of this service."""
        value = cookie(headers, self._service.sessions.cookie)
        number = None if value is None else self._service.sessions.read(value)
        found = None if number is None else self._service.keys.holder(number)
        if value is None or found is None or not self._service.sessions.holds(value, found[1]):
            return None
        if not origins.from_our_pages(headers, method, certain=True):
            raise _foreign()
        return found[0]

    def _count(self, caller: Caller) -> None:
        """Take a token of the key's bucket, and note that it was used."""
        number = caller.key_id
        assert number is not None
        wait = self._buckets.take(number)
        if wait:
            raise Problem(
                429,
                f"The key {caller.name!r} may send {self._buckets.per_second:g} requests a second. Come again later.",
                {"Retry-After": str(math.ceil(wait))},
            )
        if self._service.keys.use(number):
            self._service.later(self._service.database.write(lambda it: write_use(it, number)))


def _foreign() -> Problem:
    return Problem(
        403, "This came from a page of another site, or did not say from which. Send a key, or use our pages."
    )


def _local(scope: Scope) -> Caller:
    """Whoever sits at this machine, where there are no keys; not a page of another site in their browser."""
    if not origins.names_this_machine(scope["headers"]):
        raise Problem(
            403, "A service without keys answers to localhost, 127.0.0.1 and [::1] alone. `slots keys add` makes a key."
        )
    if not origins.from_our_pages(scope["headers"], scope["method"], certain=False):
        raise _foreign()
    return LOCAL


def _shows_pages(scope: Scope) -> bool:
    accepted = one(scope["headers"], b"accept") or b""
    return scope["method"] in origins.SAFE and b"text/html" in accepted and not scope["path"].startswith(_PROGRAMS)


async def _to_login(scope: Scope, send: Send) -> None:
    """Send a browser to the page where a key is entered, and from there back."""
    headers = [(b"location", b"/login?next=" + quote(scope["path"]).encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
