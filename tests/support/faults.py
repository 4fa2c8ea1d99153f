"""Kills and failures at a chosen operation on files, and a record of all of them: `faults.c`, from Python.

A process that was started with the library of `built` in ``LD_PRELOAD`` can arm it in a fork of itself; a command line
of its own reads the same from its environment.
"""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from protocols.commands import app

SOURCE = Path(__file__).with_name("faults.c")
KILL, KILL_AFTER, FAIL, FAIL_ON = 1, 2, 3, 4
FAULTS = {
    "killed before": (KILL, 0),
    "killed after": (KILL_AFTER, 0),  # in the middle of a write
    "ENOSPC once": (FAIL, errno.ENOSPC),
    "ENOSPC from there on": (FAIL_ON, errno.ENOSPC),
    "EIO once": (FAIL, errno.EIO),
    "EIO from there on": (FAIL_ON, errno.EIO),
}
"""What happens at an operation: the action, and what the disk says."""


def available():
    """Tell whether the library can be made here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def built(folder):
    """The library, compiled into a folder."""
    library = Path(folder) / "faults.so"
    if not library.exists():
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def environment(library, folder=None, *, fault=None, at=0):
    """Environment of a process with the library, armed for a folder from its start where one is given."""
    found = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    if folder is not None:
        action, error = FAULTS[fault]
        found |= {
            "FAULTS_FOLDER": str(folder),
            "FAULTS_ACTION": str(action),
            "FAULTS_AT": str(at),
            "FAULTS_ERRNO": str(error),
        }
    return found


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative for a signal), what it said, and how many operations it did."""

    status: int
    said: str
    operations: int


class Forked:
    """Runs commands in forks of this process, which has the library and everything imported."""

    def __init__(self, library, aside):
        self._library, self._aside = ctypes.CDLL(str(library)), Path(aside)
        app.parser()  # or each fork makes one of its own

    def run(self, command, folder, *, fault=None, at=-1, record=None, kill_after_s=None):
        """Run a function in a process of its own: with a fault at an operation, recorded, or killed after a time."""
        action, error = FAULTS[fault] if fault else (0, 0)
        out, count = self._aside / "said.txt", self._aside / "count.txt"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for stream, path in ((1, os.devnull), (2, out)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                writing = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if record else -1
                self._library.faults_arm(os.fsencode(folder), action, ctypes.c_long(at), error, writing)
                status = ended(command)
                self._library.faults_disarm()
                self._library.faults_counted.restype = ctypes.c_long
                count.write_text(str(self._library.faults_counted()))
            finally:
                os._exit(status)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        _, told = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(told)
        return Ended(status, out.read_text(errors="replace"), int(count.read_text()) if status >= 0 else 0)


def ended(command):
    """Exit status of a command that ends by `sys.exit`, with its streams flushed."""
    try:
        command()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
