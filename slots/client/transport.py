"""Requests that come again where that is safe, and errors of the service as the package's own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from slots.errors import (
    DataError,
    MissingExtraError,
    ModelError,
    OutdatedError,
    ServiceError,
    SlotsError,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    import httpx

_ERRORS: dict[int, type[SlotsError]] = {
    409: OutdatedError, 413: DataError, 422: DataError, 429: ServiceError, 500: ModelError, 502: ServiceError,
    503: ServiceError, 504: ServiceError, 507: StorageError,
}  # fmt: skip
_BUSY = frozenset({429, 502, 503, 504})
_UNTAKEN = frozenset({408, 503})  # of a stream that ends: this line and those after it were not taken
_NDJSON = "application/x-ndjson"
_PIECE = 1 << 18  # bytes of a file that are sent at once
_LONGEST_WAIT = 10.0  # seconds between two tries


class Transport:
    """A connection to a service.

    Parameters
    ----------
    address : str
        Such as ``http://127.0.0.1:8080``.
    key : str or None
        An API key.
    timeout : float
        How long one try may take (seconds).
    retries : int
        How often a request that failed is sent again (count).
    """

    def __init__(self, address: str, key: str | None, timeout: float, retries: int) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "`slots.Client` needs the package httpx. Install it: pip install 'neural-slots[serve]'"
            ) from error
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"`address` must begin with http:// or https://, got {address!r}.")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=address, timeout=timeout, headers=headers)
        self._failures: tuple[type[Exception], ...] = (httpx.TransportError,)
        self._unsent: tuple[type[Exception], ...] = (httpx.ConnectError, httpx.ConnectTimeout)
        self._address, self._retries = address, retries

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Any:
        """Send a request and return its JSON document.

        Parameters
        ----------
        method, path : str
            Of the request.
        repeatable : bool, default True
            Whether it may be sent again where nobody knows if it was done: it only reads, or has a ``key``.
        body : object, optional
            Sent as JSON.
        query : mapping, optional
            Parameters; those that are None are left out.
        key : str, optional
            ``Idempotency-Key``.

        Returns
        -------
        object
            None where the answer has no content.

        Raises
        ------
        SlotsError
            As the service's error is of the package's kinds; `ServiceError` if it cannot be reached or stays busy.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        headers = {} if key is None else {"Idempotency-Key": key}
        for tried in range(self._retries + 1):
            last = tried == self._retries
            try:
                answer = self._client.request(method, path, json=body, params=given, headers=headers)
            except self._failures as error:
                if last or not (repeatable or isinstance(error, self._unsent)):
                    raise self._unreached(error) from error
                time.sleep(_wait(tried))
                continue
            # 409 with a key after a try: the service is still busy with the first of them.
            again = answer.status_code in _BUSY or (answer.status_code == 409 and key is not None and tried > 0)
            if last or not again:
                return _document(answer)
            time.sleep(_wait(tried, answer.headers.get("Retry-After")))
        raise AssertionError("unreachable: the last try returns or raises")

    def send(self, path: str, file: Path, *, query: Mapping[str, Any] | None = None) -> Any:
        """PUT a file, with its digest, and return the answer's JSON document; sent again only where it was refused.

        Parameters
        ----------
        path : str
            Of the request.
        file : Path
            What is sent.
        query : mapping, optional
            Parameters; those that are None are left out.

        Raises
        ------
        SlotsError
            As `ask`; `UsageError` if the file cannot be read.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
                size = opened.tell()
        except OSError as error:
            raise UsageError(f"`{file}` must be a file that can be read, got: {error.strerror or error}.") from error
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(size), "Repr-Digest": _said(digest)}
        for tried in range(self._retries + 1):
            last = tried == self._retries
            try:
                with file.open("rb") as opened:
                    answer = self._client.put(path, content=_pieces(opened), params=given, headers=headers)
            except self._failures as error:
                if last or not isinstance(error, self._unsent):
                    raise self._unreached(error) from error
                time.sleep(_wait(tried))
                continue
            if last or answer.status_code not in _BUSY:
                return _document(answer)
            time.sleep(_wait(tried, answer.headers.get("Retry-After")))
        raise AssertionError("unreachable: the last try returns or raises")

    def fetch(self, path: str, file: Path) -> Path:
        """GET a file, and put it in its place when it is whole.

        Parameters
        ----------
        path : str
            Of the request.
        file : Path
            Where it goes; nothing may be there.

        Raises
        ------
        SlotsError
            As `ask`; `StorageError` if something is there or the disk refuses.
        """
        aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
        try:
            if os.path.lexists(file):
                raise StorageError(f"`{file}` must not be there yet. Choose another name.")
            try:
                with aside.open("xb") as opened, self._client.stream("GET", path) as answer:
                    if not answer.is_success:
                        answer.read()
                        _document(answer)
                    digest = hashlib.sha256()
                    for piece in answer.iter_bytes():
                        digest.update(piece)
                        opened.write(piece)
                if answer.headers.get("Repr-Digest") != _said(digest.digest()):
                    raise ServiceError("What came is not what the service sent. Fetch it again.")
                aside.rename(file)
            except self._failures as error:
                raise self._unreached(error) from error
        except OSError as error:
            raise StorageError(f"`{file}` must be writable, got: {error.strerror or error}.") from error
        finally:
            aside.unlink(missing_ok=True)
        return file

    def _unreached(self, error: Exception) -> ServiceError:
        return ServiceError(
            f"The service at {self._address} cannot be reached: {error or type(error).__name__}. "
            "Is `slots serve` running there?"
        )

    def exchange(
        self, path: str, lines: Sequence[bytes], *, query: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Send lines, and give what the service says of each, in their order; those without an answer are sent again.

        Parameters
        ----------
        path : str
            Of the request.
        lines : sequence of bytes
            JSON documents that may come twice, each with its line's end. Their answers must fit into the buffers of a
            connection: they are read when all lines are sent.
        query : mapping, optional
            Parameters; those that are None are left out.

        Yields
        ------
        dict

        Raises
        ------
        SlotsError
            As `ask`.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        done = tried = 0
        while done < len(lines):
            found: list[dict[str, Any]] = []
            asked, failure = None, "the connection ended early"
            try:
                with self._client.stream(
                    "POST", path, content=b"".join(lines[done:]), params=given, headers={"Content-Type": _NDJSON}
                ) as answer:
                    asked = answer.headers.get("Retry-After")
                    if not answer.is_success:
                        answer.read()
                        if answer.status_code not in _BUSY or tried == self._retries:
                            _document(answer)
                        failure = "it is busy"
                    else:
                        for said in answer.iter_lines():
                            found.append(json.loads(said))
            except self._failures as error:
                failure = str(error) or type(error).__name__
            if found and found[-1].get("problem", {}).get("status") in _UNTAKEN:
                failure = str(found.pop()["problem"]["detail"])
            done += len(found)
            tried = 0 if found else tried + 1
            yield from found
            if tried > self._retries:
                raise ServiceError(
                    f"The service at {self._address} took {done} of {len(lines)} lines: {failure}. Send the rest again."
                )
            if done < len(lines):
                time.sleep(_wait(tried, asked))


def _said(digest: bytes) -> str:
    """A SHA-256 as the header Repr-Digest has it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _wait(tried: int, asked: str | None = None) -> float:
    """Seconds until the next try: what the service asks for, else twice as long each time."""
    if asked is not None and asked.isascii() and asked.isdecimal():
        return min(float(asked), _LONGEST_WAIT)
    return float(min(0.1 * 2**tried, _LONGEST_WAIT))


def error_kind(status: int) -> type[SlotsError]:
    """The package's own error that a status stands for."""
    return _ERRORS.get(status, UsageError if 400 <= status < 500 else ServiceError)


def _document(answer: httpx.Response) -> Any:
    """The answer's JSON document, or its error raised."""
    if answer.status_code == 204:
        return None
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.is_success and found is not None:
        return found
    said = found.get("detail") if isinstance(found, dict) else None
    raise error_kind(answer.status_code)(
        str(said or f"The service answered {answer.status_code} without a sentence on it. Is it `slots serve`?")
    )
