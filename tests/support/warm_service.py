"""`slots serve` started in a fraction of a second: forked from a process that has imported everything, then killed.

Importing torch and the web framework takes seconds, a kill a moment. So one process imports all of it once, and forks
the service: a process of its own, in a process group of its own, that runs the very command ``slots serve`` from its
first line on, and opens its files and its database itself. The process in which it does its jobs is forked too, by the
service before it has any threads, where the service itself would start a new interpreter; it waits for jobs as one does
that has done a job before. The framework works half a second on its routes when the first request comes: that is done
before the fork, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import re
import signal
import sys
import traceback

import torch
from fastapi import FastAPI

import protocols.service.jobs.child.work  # noqa: F401  # what a job's process imports
from protocols.commands import app, serving  # noqa: F401
from protocols.service import application, description, running  # noqa: F401
from protocols.service.jobs import children, runner

ADDRESS = re.compile(rb"http://127\.0\.0\.1:\d+")


class Nursery:
    """The process that forks services; made before this process starts any thread.

    One service runs at a time.
    """

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            _nurse(theirs)
        theirs.close()

    def begin(self, arguments: list[str]) -> int:
        """Start ``slots serve`` with these arguments; its process id. It is not ready yet."""
        return self._ask("begin", arguments)

    def address(self) -> str | None:
        """Where it serves, as soon as it does; None where it ended before."""
        return self._ask("address")

    def kill(self, *, group: bool) -> None:
        """SIGKILL the service with its processes, or its main process alone."""
        self._ask("kill", group)

    def close(self) -> None:
        """Kill what runs, and end."""
        with contextlib.suppress(EOFError, OSError):
            self._ask("close")
        os.waitpid(self.pid, 0)

    def _ask(self, *words):
        self._pipe.send(words)
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found


def _nurse(pipe) -> None:
    """Do what is asked, one after the other, without a thread; never returns."""
    routes = _routes()
    application.described = lambda _routers: routes
    gc.collect()
    gc.freeze()  # so that the service's own collection does not look at, and copy, all that was imported
    child, reading = 0, -1
    while True:
        try:
            what, *given = pipe.recv()
        except EOFError:
            what, given = "close", []
        if what in ("begin", "kill", "close") and child:
            os.killpg(child, signal.SIGKILL) if what != "kill" or given[0] else os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            child = 0
        if what == "begin":
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                _serve(given[0], writing)
            os.setpgid(child, child)
            os.close(writing)
        if what == "close":
            with contextlib.suppress(OSError):
                pipe.send(None)
            os._exit(0)
        pipe.send({"begin": child, "address": _address(reading) if what == "address" else None}.get(what))


def _routes() -> FastAPI:
    """The routes of a service, each looked at once."""
    found = description.described(application.ROUTERS)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(_message: object) -> None:
        return None

    scope = {"type": "http", "method": "GET", "path": "/nothing", "query_string": b"", "headers": []}
    asyncio.run(found(scope, receive, send))
    found.middleware_stack = None  # the service adds to it
    return found


def _address(reading: int) -> str | None:
    said = b""
    while not (found := ADDRESS.search(said)):
        more = os.read(reading, 4096)
        if not more:
            return None
        said += more
    return found[0].decode()


def _serve(arguments: list[str], writing: int) -> None:
    """Be the service; never returns."""
    try:
        with contextlib.suppress(PermissionError):
            os.setpgid(0, 0)
        os.dup2(writing, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)  # the one before may be of a file, which a pipe is not
        multiprocessing.get_context = lambda _method=None, found=multiprocessing.get_context: found("fork")
        waiting = children.Child()

        class Warm(children.Children):
            def __init__(self) -> None:
                super().__init__()
                self._waiting = waiting

        runner.Children = Warm
        app.main(["serve", *arguments])
    except BaseException:  # noqa: BLE001  # whoever reads the output has to see it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


torch.set_num_threads(1)
