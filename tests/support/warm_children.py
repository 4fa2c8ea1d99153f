"""Processes for jobs that outlive one test's service and do the next one's jobs: to import torch takes seconds.

A service keeps such a process for its own next job; here the next service gets it, unless the environment, which a
process has from its start, is another one by then.
"""

import os

from protocols.service.jobs.children import Child, Children

_idle: list[tuple[dict, Child]] = []


class WarmChildren(Children):
    """Begins with the process that another service left, and leaves its own."""

    async def take(self):
        """The process that waits here, one that waits from before, or a new one."""
        if self._waiting is None and _idle and _idle[0][0] == _environment():
            self._waiting = _idle.pop()[1]
        return await super().take()

    async def close(self):
        """Leave the process that waits to the next service."""
        if self._waiting is not None and self._waiting.alive and not _idle:
            self._stop_clock()
            _idle.append((_environment(), self._waiting))
            self._waiting = None
        await super().close()


def end_idle():
    """End what waits, where a test is about a job's first process."""
    while _idle:
        _idle.pop()[1].close()


def _environment():
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
