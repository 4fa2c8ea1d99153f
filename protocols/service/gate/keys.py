"""Keys: random, shown once, kept as digests, looked up in memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import unicodedata
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from protocols.service.callers import Caller, Role
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import record
from protocols.service.inbox.tables import api_key
from slots.errors import UsageError

_NAME = 128  # characters
_SECRET = 512  # bytes of a key as it is sent; longer ones are not looked at
_USED_SECONDS = 60.0  # the last use is written no more often


@dataclass(frozen=True)
class Key:
    """A key as the database knows it: not the key itself.

    Parameters
    ----------
    number : int
        Its number.
    name : str
        Who or what uses it.
    role : Role
        What it may do.
    model : str or None
        The only model it is for; None for all.
    created : float
        When it was made (seconds since 1970).
    revoked, last_used : float or None
        When it was revoked and last used, to the minute; None for never.
    """

    number: int
    name: str
    role: Role
    model: str | None
    created: float
    revoked: float | None
    last_used: float | None


def add_key(
    connection: Connection,
    caller: Caller,
    name: str,
    role: Role,
    model: str | None = None,
    *,
    secret: str | None = None,
) -> tuple[Key, str]:
    """Make a key and write down that it was made.

    Parameters
    ----------
    connection : Connection
        As `Database.write` gives it.
    caller : Caller
        Who makes it.
    name : str
        Who or what will use it: 1 to 128 characters, unlike the names of all keys in use.
    role : Role
        What it may do.
    model : str, optional
        The only model it is for.
    secret : str, optional
        The key itself, where somebody else made it. Default: 256 random bits.

    Returns
    -------
    (Key, str)
        The key's row, and the key itself, which is nowhere else.

    Raises
    ------
    UsageError
        If the name is no such name, or the role none.
    """
    name = _plain(name)
    if role not in _ROLES.values():
        raise UsageError(f"`role` must be one of {', '.join(_ROLES)}, got {role.name.lower()}. `read` may ask only.")
    used = select(func.count()).where(api_key.c.name == name, api_key.c.revoked.is_(None))
    if connection.execute(used).scalar_one():
        raise UsageError(f"`name` must differ from those of all keys in use, got {name!r}. Revoke that one first.")
    key = secret or f"slots_{secrets.token_urlsafe(32)}"
    row = {"name": name, "role": role.name.lower(), "model": model, "digest": digest_of(key), "created": time.time()}
    number = connection.execute(insert(api_key).values(row).returning(api_key.c.number)).scalar_one()
    detail = {"key": number, "name": name, "role": role.name.lower()}
    record(connection, caller, "key.add", model=model or "", detail=detail)
    return Key(number, name, role, model, float(row["created"] or 0), None, None), key


def digest_of(key: str) -> str:
    """What is kept of a key: its SHA-256. It holds 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def revoke_key(connection: Connection, caller: Caller, key: str) -> Key | None:
    """Revoke a key for good, and write that down.

    Parameters
    ----------
    connection : Connection
        As `Database.write` gives it.
    caller : Caller
        Who revokes it.
    key : str
        Its number or its name.

    Returns
    -------
    Key or None
        The key as it is now; None if no key in use has that number or name.
    """
    in_use = [it for it in keys(connection) if it.revoked is None]
    found = next((it for it in in_use if key in (str(it.number), it.name)), None)
    if found is None:
        return None
    connection.execute(update(api_key).where(api_key.c.number == found.number).values(revoked=time.time()))
    detail = {"key": found.number, "name": found.name}
    record(connection, caller, "key.revoke", model=found.model or "", detail=detail)
    return next(it for it in keys(connection) if it.number == found.number)


def keys(connection: Connection) -> list[Key]:
    """All keys ever made, oldest first."""
    return [key for key, _ in _rows(connection)]


def role_of(word: str) -> Role:
    """The role that a word names.

    Raises
    ------
    UsageError
        If it names none.
    """
    if word not in _ROLES:
        raise UsageError(f"`role` must be one of {', '.join(_ROLES)}, got {word!r}. `read` may ask only.")
    return _ROLES[word]


class KeyRing:
    """The keys in memory, as the database had them at the last look.

    Parameters
    ----------
    database : Database
        Where they lie. Another process may change them: `refresh` now and then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._take(database.read_now(_rows))

    @property
    def needed(self) -> bool:
        """Whether requests need a key: from the first one made on, even if all were revoked since."""
        return self._ever

    @property
    def empty(self) -> bool:
        """Whether no key is in use."""
        return not self._in_use

    async def refresh(self) -> None:
        """Look at the database again."""
        self._take(await self._database.read(_rows))

    def find(self, secret: bytes) -> tuple[Key, Caller] | None:
        """Whose key it is, if it is one in use.

        Parameters
        ----------
        secret : bytes
            The key as a client sent it.

        Returns
        -------
        (Key, Caller) or None
        """
        if len(secret) > _SECRET:
            return None
        digest = hashlib.sha256(secret).hexdigest()
        for key, of in self._by_start.get(digest[:8], ()):
            if hmac.compare_digest(digest, of):
                return key, _caller(key)
        return None

    def holder(self, number: int) -> tuple[Caller, str] | None:
        """Who holds the key of a number, and its digest; None if it is not in use."""
        found = self._in_use.get(number)
        return None if found is None else (_caller(found[0]), found[1])

    def use(self, number: int) -> bool:
        """Note that a key was used; says whether that should be written now."""
        now = time.time()
        if now - self._written.get(number, 0.0) < _USED_SECONDS:
            return False
        self._written[number] = now
        return True

    def _take(self, rows: list[tuple[Key, str]]) -> None:
        self._ever = bool(rows)
        self._in_use = {key.number: (key, digest) for key, digest in rows if key.revoked is None}
        self._by_start: dict[str, list[tuple[Key, str]]] = {}
        for key, digest in self._in_use.values():
            self._by_start.setdefault(digest[:8], []).append((key, digest))
        written = getattr(self, "_written", {})
        self._written = {it.number: max(it.last_used or 0.0, written.get(it.number, 0.0)) for it, _ in rows}


def write_use(connection: Connection, number: int) -> None:
    """Write down that a key was used now."""
    connection.execute(update(api_key).where(api_key.c.number == number).values(last_used=time.time()))


_ROLES = {it.name.lower(): it for it in Role if it is not Role.NOBODY}


def _rows(connection: Connection) -> list[tuple[Key, str]]:
    found = connection.execute(select(api_key).order_by(api_key.c.number))
    return [
        (Key(it.number, it.name, _ROLES[it.role], it.model, it.created, it.revoked, it.last_used), it.digest)
        for it in found
    ]


def _caller(key: Key) -> Caller:
    return Caller(key.number, key.name, key.role, key.model)


def _plain(name: str) -> str:
    """A name in normal form; refused if it is no name."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= _NAME or not name.isprintable() or name.isdigit():
        raise UsageError(
            f"`name` must be 1 to {_NAME} printable characters and no number, got {name[:40]!r}. "
            "Say who or what will use the key."
        )
    return name
