"""Imports what commands import, and forks a command or a script whenever `nursery.py` asks for one.

It has no thread, holds no lock, opens no file and draws no random number. What it forks takes the folder, the
environment, the streams and the words that were given, runs, and ends as an interpreter does: with its status, after
its threads and its exit functions.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import os
import pickle
import random
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path

PRELOADED = (
    "PIL.Image", "faiss", "numpy", "pandas", "scipy.stats", "torch",
    "sklearn.cluster", "sklearn.covariance", "sklearn.datasets", "sklearn.linear_model", "sklearn.metrics",
    "protocols.app.fit", "protocols.commands.app", "protocols.data.loading", "protocols.recipes.building",
    "protocols.service.jobs.child.work", "protocols.service.running", "slots.model.slot_model", "slots.training",
)  # fmt: skip
"""What commands need, of which nothing starts a thread."""
_MOST = 1 << 17  # bytes of what is asked for


def serve(listening, run):
    """Fork what is asked for, and tell how each ended; returns only in what was forked, with its script.

    It ends with the process of the number ``run``, or when it is told to.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("protocols.commands.app").parser()
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "what is forked would miss a thread, and wait for locks that it holds"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for pytest
    gc.collect()
    gc.freeze()  # so that no collection of what is forked looks at, and copies, all that was imported
    children, asking, poll, over = {}, {}, select.poll(), os.pidfd_open(run)
    for it in (over, listening.fileno()):
        poll.register(it, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number == over:
                os._exit(0)
            if number == listening.fileno():
                line, _ = listening.accept()
                asking[line.fileno()] = line
                poll.register(line, select.POLLIN)
                with contextlib.suppress(OSError):
                    line.send(b"ready")
                continue
            if number in children:
                poll.unregister(number)
                _bury(number, *children.pop(number))
                continue
            try:
                said, given, _, _ = socket.recv_fds(asking[number], _MOST, 8)
            except ConnectionResetError:  # it ended without having read that all is ready
                said = b""
            if not said:
                poll.unregister(number)
                asking.pop(number).close()
                continue
            child = os.fork()
            if child == 0:
                for it in (listening, *asking.values(), *(line for _, line in children.values())):
                    it.detach()  # `_settle` closes them all
                return _settle(*pickle.loads(said), given[1:])
            line = socket.socket(fileno=given[0])
            for it in given[1:]:
                os.close(it)
            ending = os.pidfd_open(child)
            children[ending] = child, line
            poll.register(ending, select.POLLIN)
            with contextlib.suppress(OSError):  # who asked may be gone
                line.send(str(child).encode())


def _bury(ending, child, line):
    """Tell the status of a process that has ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ending)
    with contextlib.suppress(OSError):
        line.send(str(status).encode())
    line.close()


def _settle(words, script, folder, environment, streams):
    """Make a fork what an interpreter of its own would be; returns its script."""
    kept = [fcntl.fcntl(it, fcntl.F_DUPFD, 64) for it in streams]  # none of them is in the way of another
    for stream, given in enumerate(kept):
        os.dup2(given, stream)
    os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [script or str(Path(sys.executable).with_name("slots")), *words]
    at_once = "PYTHONUNBUFFERED" in environment
    for stream, name in ((1, "stdout"), (2, "stderr")):
        old, buffer = getattr(sys, name), io.BufferedWriter(io.FileIO(stream, "w", closefd=False))
        new = io.TextIOWrapper(buffer, old.encoding, old.errors, line_buffering=stream == 2, write_through=at_once)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    tempfile.tempdir = None
    random.seed()
    sys.modules["numpy"].random.seed()
    return script


def main():
    """Serve, and be the command or the script where that returns."""
    script = serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    if script is None:
        from protocols.commands import main as run
    else:
        sys.path.insert(0, str(Path(script).parent))

        def run():
            runpy.run_path(script, run_name="__main__")

    status = _ended(run)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take all modules apart would copy all the memory that is shared with the server


def _ended(run):
    """The exit status that the interpreter would have."""
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 255
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001  # the interpreter shows all of them
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
