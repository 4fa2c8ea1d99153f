"""What a worker imports before its first answer: the server that forks all workers imports it once.

Without it each worker takes two seconds of a processor more, a replaced one too.
"""

from __future__ import annotations

import contextlib
import importlib
import os

from numba.core.registry import cpu_target

import protocols.bulk.engines  # noqa: F401

os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # no fork has the threads of its server
for name in ("pyarrow.compute", "pyarrow.parquet", "pandas"):  # pyarrow asks for pandas at its first column
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()  # else with the first compiled function
