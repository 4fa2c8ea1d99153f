"""How lists of requests are read: to the first element that is wrong."""

from __future__ import annotations

from pydantic import FailFast


class AtFirst(FailFast):
    """The first element that is wrong ends the reading of a list: a problem names one, and a million take gigabytes.

    Examples
    --------
    >>> from typing import Annotated
    >>> from pydantic import TypeAdapter, ValidationError
    >>> try:
    ...     TypeAdapter(Annotated[list[int], AtFirst()]).validate_python(["a"] * 1_000_000)
    ... except ValidationError as error:
    ...     error.error_count()
    1
    """

    def __hash__(self) -> int:
        """Any number: parts of a union must have one."""
        return 0
