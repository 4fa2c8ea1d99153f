"""Routes on keys, for administrators of the whole service."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from protocols.service.api.access import TheCaller, TheService, allow_everywhere
from protocols.service.api.problems import Problem
from protocols.service.gate.keys import Key, add_key, revoke_key, role_of
from protocols.service.gate.keys import keys as read_keys

router = APIRouter(prefix="/api/v1/keys", tags=["keys"])

Word = Literal["read", "ingest", "label", "admin"]


class KeyFacts(BaseModel):
    """A key, without the key itself.

    Parameters
    ----------
    number : int
        Its number.
    name : str
        Who or what uses it.
    role : {"read", "ingest", "label", "admin"}
        What it may do; each may do what those before it may.
    model : str or None
        The only model it is for; None for all.
    created : float
        When it was made (seconds since 1970).
    revoked, last_used : float or None
        When it was revoked and last used, to the minute.
    """

    number: int
    name: str
    role: Word
    model: str | None
    created: float
    revoked: float | None
    last_used: float | None


class NewKey(BaseModel):
    """A key to be made.

    Parameters
    ----------
    name : str
        Who or what will use it; unlike the names of all keys in use.
    role : {"read", "ingest", "label", "admin"}
        What it may do.
    model : str or None
        The only model it is for; None for all.
    """

    name: str = Field(min_length=1, max_length=128)
    role: Word
    model: str | None = Field(None, max_length=128)


class MadeKey(KeyFacts):
    """A key that was just made.

    Parameters
    ----------
    key : str
        The key itself: shown now and never again.
    """

    key: str


@router.get("")
async def keys(service: TheService, caller: TheCaller) -> list[KeyFacts]:
    """All keys ever made."""
    allow_everywhere(caller)
    return [facts(it) for it in await service.database.read(read_keys)]


@router.post("", status_code=201)
async def make_key(service: TheService, caller: TheCaller, given: NewKey) -> MadeKey:
    """Make a key. The first one closes the service: from then on everybody needs one."""
    allow_everywhere(caller)
    if given.model is not None and given.model not in service.models:
        raise Problem(404, f"There is no model {given.model!r}. GET /api/v1/models lists them.")
    role = role_of(given.role)
    made, key = await service.database.write(lambda it: add_key(it, caller, given.name, role, given.model))
    await service.keys.refresh()
    return MadeKey(**facts(made).model_dump(), key=key)


@router.delete("/{number}")
async def revoke(service: TheService, caller: TheCaller, number: Annotated[int, Path(ge=1, lt=1 << 31)]) -> KeyFacts:
    """Revoke a key for good: from this answer on nobody comes in with it, nor with a session that began with it."""
    allow_everywhere(caller)
    revoked = await service.database.write(lambda it: revoke_key(it, caller, str(number)))
    await service.keys.refresh()
    if revoked is None:
        raise Problem(404, f"No key in use has the number {number}. GET /api/v1/keys lists them.")
    return facts(revoked)


def facts(key: Key) -> KeyFacts:
    """What clients are told of a key."""
    word: Word = key.role.name.lower()  # type: ignore[assignment]
    return KeyFacts(
        number=key.number,
        name=key.name,
        role=word,
        model=key.model,
        created=key.created,
        revoked=key.revoked,
        last_used=key.last_used,
    )
