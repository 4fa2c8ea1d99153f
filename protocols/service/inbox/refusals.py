"""Why something is not taken: each with one sentence; and what ids and labels may be."""

from __future__ import annotations

import unicodedata

from slots.errors import DataError, SlotsError
from slots.features.example_ids import LONGEST_ID, is_example_id

LONGEST_LABEL = 256
"""Characters of a label, at most."""


class ConflictError(SlotsError):
    """What was asked contradicts what is there already."""


class MissingError(SlotsError):
    """What was asked for is not there."""


class ReusedKeyError(DataError):
    """An Idempotency-Key came again with another request."""


def other_generation(asked: int | None, current: int) -> ConflictError:
    """Why an edit of one generation's slots is not done to another: there the numbers may mean other slots."""
    return ConflictError(
        f"The edit is of generation {asked}, and generation {current} is there now: its numbers may mean other slots. "
        "Nothing was edited; look at the slots again."
    )


def check_item_id(given: str) -> str:
    """Return an item's id in the normal form of Unicode (NFC) if it is one that an address can name.

    Parameters
    ----------
    given : str
        The client's id: 1 to 256 characters, not all blank, without control characters.

    Raises
    ------
    DataError
        If it is none.

    Examples
    --------
    >>> check_item_id("camera-3/0017.png")
    'camera-3/0017.png'
    """
    found = unicodedata.normalize("NFC", given)
    if not is_example_id(found):
        raise DataError(
            f"An id must be text of 1 to {LONGEST_ID} characters without control characters, got {given!r:.60}. "
            "Leave it out, and the content's SHA-256 is taken."
        )
    parts = found.split("/")
    if parts[-1] == "content" or "." in parts or ".." in parts:
        raise DataError(
            f"An id must not end in '/content' or have '.' or '..' between its slashes, got {given!r:.60}: no address "
            "could name it. Take another."
        )
    return found


def check_label(given: str) -> str:
    """Return a label in the normal form of Unicode (NFC), without blanks around it, if it can be one.

    Parameters
    ----------
    given : str
        1 to 256 characters, not all blank, without control characters.

    Raises
    ------
    DataError
        If it is none.

    Examples
    --------
    >>> check_label(" zebra ")
    'zebra'
    """
    found = unicodedata.normalize("NFC", given).strip()
    if not is_example_id(found):
        raise DataError(
            f"A label must be text of 1 to {LONGEST_LABEL} characters without control characters, got {given!r:.60}. "
            "Name the class, or send null to take a label back."
        )
    return found
