"""What a piece of code makes Python do: processes and connections started, files opened, by an audit hook."""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_OUTSIDE = ("socket.", "urllib.", "http.client.", "ftplib.", "smtplib.", "subprocess.", "pty.", "webbrowser.")
_PROCESSES = {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile"}
_HARMLESS = {"socket.__new__", "socket.gethostname"}  # an object, and this machine's own name
_PROGRAMS = tuple(
    str(Path(path).resolve())
    for path in {sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry.endswith("-packages"))}
)


@dataclass
class Seen:
    """Audit events of a block: what it started, and the paths that it opened."""

    started: list = field(default_factory=list)
    opened: set = field(default_factory=set)

    def opened_outside(self, *folders):
        """Opened files that lie in none of the folders, nor among the installed programs and the checkout."""
        inside = (*_PROGRAMS, str(Path(__file__).parents[2]), *(str(Path(folder).resolve()) for folder in folders))
        found = {path for path in self.opened if not path.startswith(inside)}
        return sorted(path for path in found if not path.startswith(("/proc/", "/sys/", "/dev/null", "/dev/urandom")))


_watching = []


def _hook(event, arguments):
    if not _watching:
        return
    seen = _watching[-1]
    if event == "open":
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)):
            seen.opened.add(os.path.realpath(os.fsdecode(path)))
    elif event in _PROCESSES or (event.startswith(_OUTSIDE) and event not in _HARMLESS):
        seen.started.append((event, repr(arguments)[:200]))


sys.addaudithook(_hook)


@contextmanager
def watched():
    """Collect what the block does; hooks cannot be removed, so one waits for blocks."""
    _watching.append(Seen())
    try:
        yield _watching[-1]
    finally:
        _watching.pop()
