"""The first administrator's key from a secret of whoever deploys the service: nobody has to log in for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy import Connection, select

from protocols.service.callers import SERVICE, Role
from protocols.service.gate.keys import add_key, digest_of, revoke_key
from protocols.service.inbox.tables import api_key
from slots.errors import UsageError

VARIABLE = "SLOTS_ADMIN_KEY"
"""The environment variable that may hold the key."""

NAME = "deployment"
"""What the key is called; no other key in use may have that name."""

_FORM = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")  # what fits into a header as it is, and cannot be guessed
_MOST = 4096  # bytes of its file


def given_key(file: Path | None) -> str:
    """The key of the file, or else of the environment, which forgets it: jobs are processes, and do not need it.

    Parameters
    ----------
    file : Path or None
        Holds the key and nothing else.

    Returns
    -------
    str
        Empty if there is none.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds no such key. The sentence does not hold what was read.
    """
    inherited = os.environ.pop(VARIABLE, "").strip()
    if file is None:
        return _checked(inherited, VARIABLE) if inherited else ""
    try:
        with file.open("rb") as opened:
            held = opened.read(_MOST).decode("ascii", "replace").strip()
    except OSError as error:
        raise UsageError(
            f"`--admin-key-file` must be a file that can be read, got {file}: {error.strerror}. Name another."
        ) from error
    return _checked(held, "--admin-key-file")


def ensure(connection: Connection, secret: str) -> None:
    """Make the key if it was never made; another one that was made this way before is revoked.

    A key that an administrator revoked stays revoked, however often the service starts with it.

    Parameters
    ----------
    connection : Connection
        As `Database.write` gives it.
    secret : str
        As `given_key` returns it.
    """
    made = select(api_key.c.number).where(api_key.c.digest == digest_of(secret))
    if connection.execute(made).first() is not None:
        return
    revoke_key(connection, SERVICE, NAME)
    add_key(connection, SERVICE, NAME, Role.ADMIN, secret=secret)


def _checked(held: str, place: str) -> str:
    if _FORM.fullmatch(held) is None:
        raise UsageError(
            f"`{place}` must hold a key of 32 to 512 letters, digits and characters of ._~+/=-, got {len(held)} "
            "characters. Make one: openssl rand -hex 32"
        )
    return held
