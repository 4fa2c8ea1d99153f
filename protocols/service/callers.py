"""Who sends requests, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a key may do; each role may do what those before it may."""

    NOBODY = 0
    READ = 1
    INGEST = 2
    LABEL = 3
    ADMIN = 4


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Parameters
    ----------
    key_id : int or None
        Number of the key; None where the service has no keys and listens to this machine alone.
    name : str
        The key's name: people are told apart by it.
    role : Role
        What they may do.
    model : str or None
        The only model they may use; None for all.
    """

    key_id: int | None
    name: str
    role: Role
    model: str | None = None


LOCAL = Caller(None, "local", Role.ADMIN)
"""Whoever sits at this machine, where no keys were made."""

SERVICE = Caller(None, "service", Role.ADMIN)
"""The service itself, in the log of events."""

NOBODY = Caller(None, "nobody", Role.NOBODY)
"""Whoever asks for what needs no key."""
