"""Processes below a command, as Linux lists them."""

import contextlib
from pathlib import Path


def workers_of(process, engine="processes"):
    """Processes that work on the shards of a command: forks of its server, or what Ray runs the task in."""
    return [it for it in _leaves(process) if _is_worker(_command(it), engine)]


def _is_worker(words, engine):
    return "ray::" in words and "_ray_worker" in words if engine == "ray" else "tracker" not in words and words != ""


def _leaves(process):
    with contextlib.suppress(OSError):
        below = [int(it) for it in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return [it for child in below for it in (_leaves(child) or [child])] if below else []
    return []


def _command(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    return ""
