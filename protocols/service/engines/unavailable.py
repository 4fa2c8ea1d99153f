"""The error of a database that is away for a while; it knows no database."""

from __future__ import annotations

from slots.errors import StorageError


class UnavailableError(StorageError):
    """The database is away, as while it starts again: whoever comes again a little later is served."""
