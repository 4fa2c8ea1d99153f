"""Bodies of requests: decompressed, and never larger than the bound, whatever their headers say."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocols.service.api.json_bounds import check_json
from protocols.service.api.problems import Problem
from protocols.service.callers import Role
from protocols.service.settings import Limits
from protocols.service.web.answers import answer
from protocols.service.web.memory import Returned

STREAMED = (("POST", "/items/stream"), ("PUT", "/archive"))
"""Methods and ends of the paths whose bodies are streams: their routes read them piece by piece, with own bounds."""

BODY = "slots.body"
"""Where the scope of a request has its whole body, as it is handed on as well."""

_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

_SAID_ONCE = (b"content-type", b"content-encoding", b"inference-header-content-length")


def is_streamed(scope: Mapping[str, Any]) -> bool:
    """Whether a request's body is a stream, which its route reads itself."""
    return any(scope["method"] == method and scope["path"].endswith(end) for method, end in STREAMED)


class BoundedBodies:
    """ASGI middleware: reads a request's body, inflates it as far as the bound, looks at JSON, and hands it on.

    Parameters
    ----------
    app : ASGIApp
        What stands behind.
    limits : Limits
        `Limits.body` counts bytes after decompression.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held, self._returned = Held(limits.bodies), Returned()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body is not what it should be; hand all others on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or is_streamed(scope):
            await self._app(scope, receive, send)
            return
        share = Share(self._held)
        try:
            try:
                body = await self._read(scope, receive, share)
            except Problem as problem:
                await answer(scope, send, problem)
                return
            if body is not None:
                await self._app(_plain(scope, body), _Replay(body, receive), send)
        finally:
            self._returned.after(share.most)
            share.give_back()

    async def _read(self, scope: Scope, receive: Receive, share: Share) -> bytes | None:
        """The body, plain and looked at; None where the client went away."""
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            _check_said_once(scope)
        most = self._limits.body if scope["slots.caller"].role > Role.NOBODY else self._limits.first_body
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        body = await _collected(receive, int(headers.get(b"content-length", b"0") or 0), most, share)
        if body is not None and encoding != b"identity":
            body = _inflated(body, encoding, most)
            share.take(len(body))
        document = None if body is None else _document(body, scope["path"], headers)
        if document is not None:
            check_json(document, self._limits)
        return body


def _check_said_once(scope: Scope) -> None:
    """Refuse two headers that say how to read a body: its reader may go by another one than is looked at here."""
    names = [name for name, _ in scope["headers"]]
    for name in _SAID_ONCE:
        if names.count(name) > 1:
            raise Problem(400, f"The header {name.decode()} may be sent once, got it more often. Send one of them.")


class Held:
    """Bytes of all bodies that are held at a time.

    Parameters
    ----------
    most : int
        How many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0


class Share:
    """What one request holds of them."""

    def __init__(self, of: Held) -> None:
        self._of, self._taken = of, 0
        self.most = 0  # at any time

    def take(self, n_bytes: int) -> None:
        """Hold so many more.

        Raises
        ------
        Problem
            503, if there is no room for them.
        """
        if self._of.taken + n_bytes > self._of.most and self._of.taken > self._taken:  # one alone is never too many
            raise Problem(
                503, "More bodies are held than there is room for. Come again in a second.", {"Retry-After": "1"}
            )
        self._of.taken += n_bytes
        self._taken += n_bytes
        self.most = max(self.most, self._taken)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._of.taken -= self._taken
        self._taken = 0


def _plain(scope: Scope, body: bytes) -> Scope:
    """The request as if its body had come plain and whole."""
    dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name not in dropped]
    return {**scope, BODY: body, "headers": [*kept, (b"content-length", str(len(body)).encode())]}


def _document(body: bytes, path: str, headers: dict[bytes, bytes]) -> bytes | None:
    """The part of a body that will be read as JSON; None for none."""
    media = headers.get(b"content-type", b"").lower()
    if path.startswith("/v2/"):  # whatever the media type says
        n_bytes = headers.get(b"inference-header-content-length")
        if n_bytes is None:
            return body
        return body[: int(n_bytes)] if n_bytes.isdigit() and len(n_bytes) < 20 and int(n_bytes) else None
    return body if b"json" in media else None


class _Replay:
    """Hands a body on in one piece; after it, whatever the connection says next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _collected(receive: Receive, announced: int, most: int, share: Share) -> bytes | None:
    """The body as it came; None where the client went away.

    A body beyond the bound is read to its end, and dropped: a client that still sends does not see an answer before.
    Whoever takes too long is cut off by `protocols.service.web.deadline`.
    """
    parts: list[bytes] = []
    n_bytes, refused = 0, _too_large(most) if announced > most else None
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        n_bytes += len(part)
        if refused is None:
            try:
                if n_bytes > most:
                    raise _too_large(most)
                share.take(len(part))
                parts.append(part)
            except Problem as problem:
                refused = problem
                share.give_back()
                parts.clear()
        if not message.get("more_body"):
            break
    if refused is not None:
        raise refused
    return b"".join(parts)


def _inflated(body: bytes, encoding: bytes, most: int) -> bytes:
    """Inflate a body, one byte further than the bound at most."""
    if encoding not in _WINDOWS:
        raise Problem(415, f"Content-Encoding must be gzip or deflate, got {encoding.decode('ascii', 'replace')!r}.")
    inflate = zlib.decompressobj(_WINDOWS[encoding])
    try:
        plain = inflate.decompress(body, most + 1)
    except zlib.error as error:
        raise Problem(400, "The body is not compressed as Content-Encoding says. Send it plain.") from error
    if len(plain) > most:
        raise _too_large(most)
    if not inflate.eof or inflate.unused_data:
        raise Problem(400, "The compressed body ends too early, or goes on after its end. Send it again.")
    return plain


def _too_large(most: int) -> Problem:
    return Problem(413, f"A body may have {most} bytes after decompression. Send several requests.")
