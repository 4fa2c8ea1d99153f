"""How many files this process may have open: a connection is one, and without any left nobody is answered."""

from __future__ import annotations

import contextlib

_OTHERS = 256  # files of models, databases, jobs and libraries (count)


def room_for(connections: int) -> int:
    """Let this process open as many files as connections need, as far as the system lets it.

    Parameters
    ----------
    connections : int
        That are wanted (count).

    Returns
    -------
    int
        How many may be open: fewer, where the system allows fewer files.
    """
    try:
        import resource
    except ImportError:  # Windows has no such bound
        return connections
    wanted = connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _less(soft, wanted):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard if _less(hard, wanted) else wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - _OTHERS) if _less(soft, wanted) else connections


def _less(bound: int, wanted: int) -> bool:
    """Whether a bound is below a number; a negative bound is none."""
    return 0 <= bound < wanted
