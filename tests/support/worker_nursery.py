"""Workers of pytest-xdist, forked from one process that has imported all tests.

A worker that begins with nothing imports every test and what it needs: 17 seconds of a processor, and 30 where the
tests are not compiled yet. A fork of a process that has collected them needs 3. `conftest.py` lets pytest-xdist start
this file in place of an interpreter: it sends its streams to the server, waits, and ends with the status of the fork.

Where the server cannot fork, as after a test that cannot be imported, the worker is an interpreter of its own.
"""

import atexit
import contextlib
import importlib
import io
import os
import pickle
import random
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

THREADED = ("onnxruntime",)
"""Packages whose import starts a thread, which no fork would have: tests that name one are left to the workers."""

THREADLESS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What keeps Arrow from starting one."""

OF_A_TERMINAL = ("COLUMNS", "LINES")
"""What readline tells processes that pytest starts; `support.nursery` would take it for an environment of their own."""

_MOST = 1 << 17  # bytes of what is asked for


def start(arguments, name):
    """Begin to collect what pytest was asked for; the command that stands for an interpreter, or None."""
    if not hasattr(os, "pidfd_open"):
        return None
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0{name}")
    listening.listen()
    words = ["serve", str(listening.fileno()), str(os.getpid()), *map(str, arguments)]
    with listening:
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, *words], pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | THREADLESS,
        )  # fmt: skip
    atexit.register(lambda: (server.kill(), server.wait()))
    return [sys.executable, "-P", __file__, "ask", name]


def serve(number, run, arguments):
    """Collect, then fork whenever that is asked for; returns only in a fork, with the words that it was given.

    It ends with the process of the number ``run``.
    """
    import pytest

    with contextlib.suppress(ImportError):
        importlib.import_module("pyarrow")
    for variable in THREADLESS:  # read by now; tests compare what else is there
        os.environ.pop(variable, None)
    before = dict(os.environ)

    class Leave:
        """Leave out what a fork could not use."""

        def pytest_ignore_collect(self, collection_path):
            if collection_path.suffix == ".py":
                return any(it in collection_path.read_text(encoding="utf-8") for it in THREADED) or None
            return None

    collected = pytest.main([*arguments, "--collect-only", "-q", "-n0"], plugins=[Leave()])
    by_imports = dict(os.environ.items() - before.items())
    able = collected == pytest.ExitCode.OK and len(list(Path("/proc/self/task").iterdir())) == 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for pytest
    listening, over, poll, ending = socket.socket(fileno=number), os.pidfd_open(run), select.poll(), {}
    poll.register(listening.fileno(), select.POLLIN)
    poll.register(over, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == over:
                os._exit(0)
            if ready in ending:
                poll.unregister(ready)
                _bury(ready, *ending.pop(ready))
                continue
            line, _ = listening.accept()
            said, streams, _, _ = socket.recv_fds(line, _MOST, 3)
            child = os.fork() if able else None
            if child == 0:
                for it in (listening, line, *(other for _, other in ending.values())):
                    it.close()
                for it in (over, *ending):
                    os.close(it)
                words, folder, environment = pickle.loads(said)
                asked = by_imports | {it: value for it, value in environment.items() if it not in OF_A_TERMINAL}
                _settle(folder, asked | {it: before[it] for it in OF_A_TERMINAL if it in before}, streams)
                return words
            for it in streams:
                os.close(it)
            line.send(str(child or 0).encode())
            if child is not None:
                number = os.pidfd_open(child)
                ending[number] = child, line
                poll.register(number, select.POLLIN)


def _bury(ending, child, line):
    """Tell the status of a worker that has ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ending)
    line.send(str(status).encode())
    line.close()


def _settle(folder, environment, streams):
    """Make a fork what an interpreter of its own would be."""
    for stream, given in enumerate(streams):  # which are above 2, for the server has these three
        os.dup2(given, stream)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    for stream, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        opened = io.TextIOWrapper(open(stream, mode + "b", buffering=0, closefd=False), "utf-8", write_through=True)  # noqa: SIM115
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)


def ask(name, words):
    """Be a worker: wait for a fork that is one, or become an interpreter; does not return."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        try:
            line.connect(f"\0{name}")
            socket.send_fds(line, [pickle.dumps((words, os.getcwd(), dict(os.environ)))], [0, 1, 2])
            child = int(line.recv(64) or 0)
        except ConnectionError:
            child = 0
        if child:
            os.closerange(0, 2)  # the fork alone has them: its end is theirs
            os._exit(int(line.recv(64) or 1) & 255)
    os.execv(sys.executable, [sys.executable, *words])


def main():
    """Serve, ask, or be what was asked for."""
    role, *words = sys.argv[1:]
    if role == "ask":
        ask(words[0], words[1:])
    given = serve(int(words[0]), int(words[1]), words[2:])
    sys.argv = ["-c"]
    exec(given[-1], {"__name__": "__main__"})


if __name__ == "__main__":
    main()
