"""Processes for jobs that outlive one test's service and do the next one's jobs: to import torch takes seconds.

A service keeps such a process for its own next job; here the next service gets it, unless the environment, which a
process has from its start, is another one by then. The first one is forked from the nursery where that is possible.
"""

import asyncio
import multiprocessing
import os
import subprocess
from pathlib import Path

from support import nursery

from protocols.service.jobs.children import Child, Children

_SCRIPT = Path(__file__).with_name("job_child.py")

_idle: list[tuple[dict, Child]] = []


class WarmChildren(Children):
    """Begins with the process that another service left, and leaves its own."""

    async def take(self):
        """The process that waits here, one that waits from before, or a new one."""
        if self._waiting is None and _idle and _idle[0][0] == _environment():
            self._waiting = _idle.pop()[1]
        if (self._waiting is None or not self._waiting.alive) and _can_fork():
            dead, self._waiting = self._waiting, await asyncio.to_thread(_Forked)
            if dead is not None:
                await asyncio.to_thread(dead.close)
        return await super().take()

    async def close(self):
        """Leave the process that waits to the next service."""
        if self._waiting is not None and self._waiting.alive and not _idle:
            self._stop_clock()
            _idle.append((_environment(), self._waiting))
            self._waiting = None
        await super().close()


def _can_fork():
    """Whether one can be forked at once: who cancels a job waits for its process."""
    return nursery.can_fork() and nursery.is_ready()


class _Forked(Child):
    """One that the nursery forked."""

    def __init__(self):
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = _Process(nursery.begin([], script=_SCRIPT, files=[theirs.fileno()]))


class _Process:
    """It, with what `multiprocessing.Process` has for one."""

    def __init__(self, begun):
        self._begun, self.pid = begun, begun.pid
        self.terminate, self.kill = begun.terminate, begun.kill

    @property
    def exitcode(self):
        return self._begun.poll()

    def is_alive(self):
        return self.exitcode is None

    def join(self, timeout=None):
        try:
            self._begun.wait(timeout)
        except subprocess.TimeoutExpired:
            return

    def close(self):
        self._begun.communicate()


def end_idle():
    """End what waits, where a test is about a job's first process."""
    while _idle:
        _idle.pop()[1].close()


def _environment():
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
