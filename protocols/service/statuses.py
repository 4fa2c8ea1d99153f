"""Which HTTP status an error of the package has, for routes and for jobs; it knows no web framework."""

from __future__ import annotations

from typing import Any

from protocols.service.engines.unavailable import UnavailableError
from protocols.service.inbox.refusals import ConflictError, MissingError
from slots.errors import DataError, ModelError, OutdatedError, SlotsError, StorageError, UsageError

STATUS: tuple[tuple[type[SlotsError], int], ...] = (
    (OutdatedError, 409),
    (ConflictError, 409),
    (MissingError, 404),
    (UsageError, 400),
    (DataError, 422),
    (UnavailableError, 503),
    (StorageError, 507),
    (ModelError, 500),
)
"""Status of each kind of error of the package; the first that fits."""

TITLES = {
    400: "Bad request", 401: "No key", 403: "Not allowed", 404: "Not found", 405: "Method not allowed",
    408: "Request timeout", 409: "Conflict", 413: "Too large", 415: "Unsupported media type",
    422: "Not understood", 429: "Too many requests", 431: "Headers too large", 500: "Internal error",
    503: "Busy", 507: "No space",
}  # fmt: skip
"""What each status is called."""


def status_of(error: Exception) -> tuple[int, str]:
    """Status and sentence of an error; what nobody foresaw is a 500 without its text."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status, str(error)
    return 500, f"Internal error ({type(error).__name__}). Please report it."


def problem_details(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem's JSON document (RFC 9457)."""
    return {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
