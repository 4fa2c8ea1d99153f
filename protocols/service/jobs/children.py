"""Processes for jobs, from the service's side: started, told, watched, ended, and kept warm for a while."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

from protocols.service.jobs.child.main import main
from protocols.service.jobs.child.tasks import Answered, Task, Told

_IDLE_SECONDS = 300.0  # after which the waiting process is ended, for its memory
_PATIENCE_SECONDS = 5.0  # for a process to end by SIGTERM before it gets SIGKILL


class ChildEnded(Exception):  # noqa: N818  # what happened, of which the caller makes a state
    """The process ended before it answered.

    Parameters
    ----------
    code : int or None
        Its exit status, negative for a signal.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"The job's process ended with status {code}.")
        self.code = code


class Child:
    """One process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that are not there
        ours, theirs = context.Pipe()
        self._pipe: Connection = ours
        self._process = context.Process(target=main, args=(theirs,), name="slots-job", daemon=True)
        self._process.start()
        theirs.close()  # so that its end is the end of the pipe

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def run(self, task: Task, told: Callable[[str, float], None]) -> Answered:
        """Do a job; blocks, and tells the progress from this thread.

        Raises
        ------
        ChildEnded
            If the process ends before it answers, by itself or by `end`.
        """
        try:
            self._pipe.send(task)
            while not isinstance(message := self._pipe.recv(), Answered):
                if isinstance(message, Told):
                    told(message.step, message.share)
        except (EOFError, OSError) as error:
            self._process.join(_PATIENCE_SECONDS)
            raise ChildEnded(self._process.exitcode) from error
        return message

    def end(self) -> None:
        """End it, whatever it does: the store of model folders makes that safe at any moment. Blocks."""
        self._process.terminate()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_PATIENCE_SECONDS)

    def close(self) -> None:
        """End it, and free what this process holds of it; only after `run` has returned."""
        self.end()
        self._pipe.close()
        with contextlib.suppress(ValueError):
            self._process.close()


class Children:
    """At most one process waits, with everything imported, for the next job."""

    def __init__(self, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._waiting: Child | None = None
        self._clock: asyncio.TimerHandle | None = None

    async def take(self) -> Child:
        """A process for one job: the waiting one, or a new one."""
        child, self._waiting = self._waiting, None
        self._stop_clock()
        if child is not None:
            if child.alive:
                return child
            await asyncio.to_thread(child.close)
        return await asyncio.to_thread(Child)

    async def give_back(self, child: Child) -> None:
        """Let a process wait for the next job; one that ended, or is too many, is closed."""
        if self._waiting is None and child.alive:
            self._waiting = child
            self._stop_clock()
            self._clock = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire)
        else:
            await asyncio.to_thread(child.close)

    async def close(self) -> None:
        """End the process that waits."""
        child, self._waiting = self._waiting, None
        self._stop_clock()
        if child is not None:
            await asyncio.to_thread(child.close)

    def _retire(self) -> None:
        child, self._waiting = self._waiting, None
        if child is not None:
            asyncio.get_running_loop().run_in_executor(None, child.close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
