"""Compilation of loops with numba, cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile without the interpreter lock, cached on disk; in memory only where no folder can be written."""
    try:
        return cast(_F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found neither the package's folder nor the user's writable
        return cast(_F, numba.njit(nogil=True)(function))
