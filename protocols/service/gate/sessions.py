"""Sessions of browsers: a signed cookie that names a key, without the key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path

from slots.errors import StorageError

SECONDS = 12 * 3600
"""How long a session lasts."""

_BYTES = 32
_FORM = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})\.([0-9a-f]{64})")  # key, end (seconds since 1970), signature


class Sessions:
    """Signs and reads the cookies of a service.

    Parameters
    ----------
    folder : Path
        The data folder: holds the secret, which is made at the first start, readable by nobody else.

    Raises
    ------
    StorageError
        If the secret cannot be read or made.
    """

    def __init__(self, folder: Path) -> None:
        self._secret = _secret(folder / "session.secret")
        self.cookie = f"slots_{hashlib.sha256(self._secret).hexdigest()[:8]}"
        """Name of the cookie: that of another service on this machine has another, as cookies know no ports."""

    def sign(self, number: int, digest: str) -> str:
        """The cookie of a session that begins now.

        Parameters
        ----------
        number : int
            Number of the key.
        digest : str
            Its digest: a session ends with its key.

        Returns
        -------
        str
        """
        until = int(time.time()) + SECONDS
        return f"{number}.{until}.{self._signature(number, until, digest)}"

    def read(self, value: str) -> int | None:
        """The number of the key that a cookie claims, if it has not run out; `holds` says whether it is true."""
        parts = _FORM.fullmatch(value)
        if parts is None or int(parts[2]) < time.time():
            return None
        return int(parts[1])

    def holds(self, value: str, digest: str) -> bool:
        """Whether a cookie was signed here, for the key of this digest."""
        parts = _FORM.fullmatch(value)
        return parts is not None and hmac.compare_digest(
            self._signature(int(parts[1]), int(parts[2]), digest), parts[3]
        )

    def _signature(self, number: int, until: int, digest: str) -> str:
        return hmac.new(self._secret, f"session {number} {until} {digest}".encode(), hashlib.sha256).hexdigest()


def _secret(file: Path) -> bytes:
    """The secret of a file, which is made with 32 random bytes if it is not there."""
    try:
        if not file.exists():
            _make(file)
        found = file.read_bytes()
    except OSError as error:
        raise StorageError(
            f"The secret of the sessions, {file}, cannot be read or made: {error.strerror}. Name another --data folder."
        ) from error
    if len(found) != _BYTES:
        raise StorageError(f"{file} must hold {_BYTES} random bytes, got {len(found)}. Remove it: a new one is made.")
    return found


def _make(file: Path) -> None:
    """Write a new secret under another name and link it, so that of two processes one wins, and none reads half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, file)
    finally:
        fresh.unlink(missing_ok=True)
