"""Imports of large packages without passes of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is made inside lasts as long as the process: the garbage collector neither looks at it now nor later.

    For imports. The modules of torch and a web framework are 300,000 objects, none of them garbage, and every pass over
    all of them while they come in is for nothing.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
