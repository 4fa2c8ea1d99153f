"""What an error of the database means: it is away for a while, or it refuses."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from protocols.service.engines.unavailable import UnavailableError
from slots.errors import StorageError

_AWAY = ("08", "57P", "53300", "40001", "40P01")
"""How SQLSTATEs of PostgreSQL begin that pass by themselves: connections lost or too many, restarts, lost races."""

_SQLITE = "SQLite"  # whose errors have no SQLSTATE


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the database is away for a while, rather than unwilling."""
    if isinstance(error, PoolTimeoutError | PendingRollbackError):
        return True  # all connections are in use; or the one in use was lost in the middle of a transaction
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state: str | None = getattr(error.orig, "sqlstate", _SQLITE)
    # Without a state it is the client's library that speaks: the server cannot be reached.
    return state.startswith(_AWAY) if state else isinstance(error, OperationalError)


def is_general(error: SQLAlchemyError) -> bool:
    """Whether an error concerns everybody in a transaction, and not the statement that met it."""
    return isinstance(error, OperationalError) or is_away(error)


def refused(error: SQLAlchemyError, *, detailed: bool = False) -> StorageError:
    """The package's error for one of the database.

    Parameters
    ----------
    error : SQLAlchemyError
        Which `is_general`, or came from a commit.
    detailed : bool, default False
        Whether it may name the server, which is no client's business.
    """
    said = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
    if is_away(error):
        return UnavailableError(
            f"The database cannot be reached{f': {said}' if detailed else ''}. Come again in a second; what has an "
            "Idempotency-Key, or an id, is done once even if it was done already."
        )
    return StorageError(f"The database could not be used: {said}. Nothing was kept of what was asked.")
