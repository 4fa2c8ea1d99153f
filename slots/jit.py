"""Compilation of loops with numba, cached on disk where that is possible.

Where compiled code gives a slice the values of an array, numba compiles the sentence for shapes that differ along with
it, which takes several seconds: so it is a loop there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])

_REORDER = {"reassoc", "contract", "nsz"}  # sums may be vectorised; infinities stay what they are


def compiled(function: _F) -> _F:
    """Compile without the interpreter lock, cached on disk; in memory only where no folder can be written."""
    return _compiled(function)


def compiled_in_place(function: _F) -> _F:
    """Compile likewise a function that makes no array, without counting references to arrays.

    Where small functions hand on a tuple of many arrays, counting takes longer than the work: of a step of a search of
    a sparse set cover it took nine tenths.
    """
    return _compiled(function, _nrt=False)


def reordered(function: _F) -> _F:
    """Compile likewise, with sums of floats in whatever order is quickest."""
    return _compiled(function, fastmath=_REORDER, error_model="numpy")  # a check before each division forbids vectors


def _compiled(function: _F, **options: Any) -> _F:
    try:
        return cast(_F, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # numba found neither the package's folder nor the user's writable
        return cast(_F, numba.njit(nogil=True, **options)(function))
