"""Memory of large requests goes back to the system: the C library keeps what was freed, for requests like them."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from functools import cache

_LARGE = 1 << 20  # bytes of a body from which it is worth the millisecond that it takes
_WAIT_SECONDS = 0.5  # several large bodies that come together are one time to give back


class Returned:
    """Gives memory back some time after large bodies are done with, in a thread."""

    def __init__(self) -> None:
        self.due = False  # whether it will soon be done

    def after(self, n_bytes: int) -> None:
        """Note that a body of so many bytes is done with.

        Parameters
        ----------
        n_bytes : int
            As many as were held for it.
        """
        if n_bytes >= _LARGE and not self.due and _trim() is not None:
            self.due = True
            asyncio.get_running_loop().call_later(_WAIT_SECONDS, self._begin)

    def _begin(self) -> None:
        self.due = False
        trim = _trim()
        if trim is not None:
            asyncio.get_running_loop().run_in_executor(None, trim, 0)


@cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc; other C libraries have none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return found
