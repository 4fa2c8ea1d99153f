"""Whether there is memory for one more model."""

from __future__ import annotations

from pathlib import Path

from slots.storage.states import read_pointer

_MODELS = 2  # a job holds the model that it changes, and the one that it compares with


def need(folder: Path, more: int = 0) -> str:
    """Why a job on a model should not start now; empty where it may.

    Parameters
    ----------
    folder : Path
        A model folder; its current state is about as large in memory as on the disk.
    more : int, default 0
        Of another model that the job holds (bytes).

    Returns
    -------
    str
        A sentence, if less memory is available than twice the models.
    """
    state = folder / "states" / read_pointer(folder).current
    wanted, free = _MODELS * (sum(path.stat().st_size for path in state.iterdir()) + more), available()
    if free is None or free >= wanted:
        return ""
    return f"A job needs {wanted / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are available. Come again later."


def available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that processes can still have (bytes); None where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
