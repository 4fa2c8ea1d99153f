"""A large body, piece by piece to the disk: bounded as it comes and as it inflates, and never held in memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import shutil
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from starlette.requests import ClientDisconnect

from protocols.service.api.problems import Problem
from protocols.service.service import Service
from slots.errors import StorageError
from slots.storage.atomic import storage

_PIECE = 1 << 16  # bytes that must come within the deadline, the last ones excepted
_INFLATED = 1 << 20  # bytes that are inflated at once
_LOOK = 1 << 24  # bytes between two looks at the free disk
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


@dataclass(frozen=True)
class Received:
    """What came in: its SHA-256 (hexadecimal) and its bytes, after decompression."""

    sha256: str
    size: int


async def receive(service: Service, request: Request, path: Path) -> Received:
    """Write a request's body to a new file, inflated, and force it to the disk.

    Parameters
    ----------
    service : Service
        Its limits: `Limits.archive` counts bytes as they come and after decompression.
    request : Request
        Nothing of its body was read yet.
    path : Path
        The file; what there is of it when something goes wrong, the caller removes.

    Returns
    -------
    Received

    Raises
    ------
    Problem
        400, 408, 413, 415, 422, 503 or 507.
    """
    most = service.settings.limits.archive
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOWS:
        raise Problem(415, f"Content-Encoding must be gzip or deflate, got {encoding!r:.40}.")
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise _too_large(most)
    with storage(path), path.open("xb") as file:
        writer = _Writer(file, most, service.settings.keeping.free, _WINDOWS.get(encoding))
        n_bytes = 0
        async for piece in _pieces(service, request):
            n_bytes += len(piece)
            if n_bytes > most:
                raise _too_large(most)
            await asyncio.to_thread(writer.write, piece)
        await asyncio.to_thread(writer.end)
    found = Received(writer.digest.hexdigest(), writer.size)
    _compare(request.headers, found)
    return found


class _Writer:
    """Inflates and writes, within bounds."""

    def __init__(self, file: IO[bytes], most: int, free: int, window: int | None) -> None:
        self._file, self._most, self._free = file, most, free
        self._inflate = None if window is None else zlib.decompressobj(window)
        self.digest, self.size = hashlib.sha256(), 0
        self._looked = -_LOOK

    def write(self, piece: bytes) -> None:
        """Write what one piece of the body stands for."""
        if self._inflate is None:
            self._put(piece)
            return
        while piece:
            try:
                plain = self._inflate.decompress(piece, _INFLATED)
            except zlib.error as error:
                raise Problem(400, "The body is not compressed as Content-Encoding says. Send it plain.") from error
            self._put(plain)
            if self._inflate.unused_data:
                raise Problem(400, "The compressed body goes on after its end. Send it again.")
            piece = self._inflate.unconsumed_tail

    def end(self) -> None:
        """Force it to the disk; it must be whole."""
        if self._inflate is not None and not self._inflate.eof:
            raise Problem(400, "The compressed body ends too early. Send it again.")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put(self, plain: bytes) -> None:
        self.size += len(plain)
        if self.size > self._most:
            raise _too_large(self._most)
        if self.size - self._looked >= _LOOK:
            self._looked = self.size
            free = shutil.disk_usage(os.path.dirname(self._file.name)).free
            if free < self._free:
                raise StorageError(
                    f"{self._free >> 20} MiB must stay free on the disk of the data folder, and {free >> 20} MiB are. "
                    "Free some, or give the service another --data."
                )
        self.digest.update(plain)
        self._file.write(plain)


async def _pieces(service: Service, request: Request) -> AsyncIterator[bytes]:
    """The body in pieces that each came within the deadline."""
    seconds = service.settings.limits.request_seconds
    stream = aiter(request.stream())
    more = True
    while more:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                while more and sum(map(len, parts)) < _PIECE:
                    part = await anext(stream, None)
                    more = part is not None
                    parts.append(part or b"")
        except TimeoutError as error:
            raise Problem(
                408, f"{_PIECE >> 10} KiB must come every {seconds:g} seconds. Send it over a faster line."
            ) from error
        except ClientDisconnect as error:
            raise Problem(400, "The connection ended before the archive did. Send it again.") from error
        if service.ending.is_set():
            raise Problem(503, "The service is stopping. Send it again.", {"Retry-After": "10"})
        yield b"".join(parts)


def _compare(headers: Mapping[str, str], found: Received) -> None:
    """Hold what came in against the digest that the client names, if it names one (RFC 9530)."""
    for word in headers.get("repr-digest", "").split(","):
        name, _, value = word.strip().partition("=")
        if name.lower() == "sha-256":
            try:
                said = base64.b64decode(value.strip(":"), validate=True).hex()
            except (binascii.Error, ValueError):
                said = ""
            if said != found.sha256:
                raise Problem(422, "The archive is not the one that Repr-Digest names. Send it again.")


def _too_large(most: int) -> Problem:
    return Problem(413, f"An archive may have {most} bytes, compressed or not (slots serve --max-archive-mib).")
