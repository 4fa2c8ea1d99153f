"""The process that does a job: it is told what to do over a pipe, tells its progress, and answers over the same pipe.

It imports the library and nothing of the web; importing torch takes seconds, so it waits for another job afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection

from protocols.service.jobs.child.tasks import Told
from slots.importing import lasting

_NICE = 5  # answers come before jobs


def main(pipe: Connection) -> None:
    """Work on what comes over a pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all; the service ends its children
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with lasting():
        from protocols.service.jobs.child.work import work  # torch and the library: while the first task is made ready

    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(work(task, lambda step, share: pipe.send(Told(step, share))))


def _end_with_parent() -> None:
    """A service that was killed cannot end its children: they see it, and go on with nothing that nobody waits for."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
