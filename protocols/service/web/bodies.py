"""Bodies of requests: decompressed, and never larger than the bound, whatever their headers say."""

from __future__ import annotations

import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocols.service.api.problems import Problem
from protocols.service.settings import Limits
from protocols.service.web.answers import answer

STREAMED = ("/items/stream",)
"""Ends of the paths whose bodies are streams: their routes read them line by line, and bound each line."""

_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class BoundedBodies:
    """ASGI middleware: reads a request's body, inflates it as far as the bound, and hands it on in one piece.

    Parameters
    ----------
    app : ASGIApp
        What stands behind.
    limits : Limits
        `Limits.body` counts bytes after decompression.
    streamed : tuple of str, optional
        Ends of paths whose bodies are streams; they are bounded by the routes themselves.
    """

    def __init__(self, app: ASGIApp, limits: Limits, streamed: tuple[str, ...] = ()) -> None:
        self._app, self._most, self._streamed = app, limits.body, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body is not what it should be; hand all others on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"].endswith(self._streamed):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        try:
            body = await _collected(receive, int(headers.get(b"content-length", b"0") or 0), self._most)
            if body is None:
                return
            if encoding != b"identity":
                body = _inflated(body, encoding, self._most)
        except Problem as problem:
            await answer(scope, send, problem)
            return
        plain = [
            (name, value) for name, value in scope["headers"] if name not in (b"content-encoding", b"content-length")
        ]
        scope = {**scope, "headers": [*plain, (b"content-length", str(len(body)).encode())]}
        await self._app(scope, _Replay(body, receive), send)


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


async def _collected(receive: Receive, announced: int, most: int) -> bytes | None:
    """The body as it came; None where the client went away.

    A body beyond the bound is read to its end, and dropped: a client that still sends does not see an answer before.
    Whoever takes too long is cut off by `protocols.service.web.deadline`.
    """
    parts, n_bytes = [], announced if announced > most else 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes <= most:
            parts.append(part)
        else:
            parts.clear()
        if not message.get("more_body"):
            break
    if n_bytes > most:
        raise _too_large(most)
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
