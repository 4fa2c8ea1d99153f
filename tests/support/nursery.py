"""The ``slots`` command, or a script, as a process of its own at once: forked from one that has imported everything.

An interpreter that imports torch and the web framework takes seconds of a processor, a fork a moment. So the first
`begin` of a process starts a server, `nursery_server.py`, which imports all of it and from then on only forks.

All workers of pytest-xdist have one server together: the first that needs it starts it, and it ends with the pytest
that started them.

How a command starts, and what it imports by itself, is not to be learnt here: `support.command.SLOTS` is the installed
one. It is taken here too where there are no forks of this kind, or where the environment is read before `main`.
"""

import atexit
import contextlib
import errno
import hashlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SLOTS = str(Path(sys.executable).with_name("slots"))
LATE = {"COLUMNS", "HOME", "NO_COLOR", "OLDPWD", "PATH", "PWD", "SHLVL", "TMPDIR", "XDG_CACHE_HOME", "_"}
"""Variables that are read when they are needed; others may be read at an import."""

_LATE_TOO = ("SLOTS_", "SLURM_", "PYTEST_", "KMP_", "TORCHINDUCTOR_", "_TORCHINDUCTOR_", "CUBLAS_")
"""So are those of slots, Slurm and pytest, and what scikit-learn and torch set themselves once they are imported.

The last comes with torch's compiler: without it here, no command was forked any more after a test that compiles.
"""

BASE = {**os.environ, "OMP_NUM_THREADS": "1"}
THREADLESS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What keeps Arrow, which comes with pandas, from starting a thread."""


class Begun:
    """A process of the nursery, with what `subprocess.Popen` has for one.

    Parameters
    ----------
    line : socket
        To the server, which tells the process id, and the status once the process has ended.
    stdout, stderr : file or None
        What it says, to be read while it runs where it is a pipe, and by `communicate` where it is a file.
    """

    def __init__(self, line, stdout, stderr=None):
        self._line, self._lock = line, threading.Lock()
        self.stdout, self.stderr, self.returncode = stdout, stderr, None
        self.pid = _told(line)

    def poll(self):
        """The exit status, negative for a signal; None while it runs."""
        with self._lock:
            return self._look()

    def wait(self, timeout=None):
        """The exit status, as soon as there is one."""
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        pause = 0.0005
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(SLOTS, timeout)
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return self.returncode

    def communicate(self, timeout=None):
        """Both streams in whole, as text, after its end; only where they are files."""
        self.wait(timeout)
        said = []
        for stream in (self.stdout, self.stderr):
            stream.seek(0)
            said.append(stream.read())
            stream.close()
        return tuple(said)

    def send_signal(self, number):
        """A signal to this process alone, unless it has ended."""
        with self._lock:
            if self._look() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _look(self):
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self.returncode = _told(self._line)
            self._line.close()
        return self.returncode


class Nursery:
    """The server, and the way to it."""

    def __init__(self):
        self._run = int(os.environ.get("SLOTS_TEST_RUN", os.getpid()))
        kept = sorted(it for it in BASE.items() if not _read_late(it[0]))
        name = f"\0slots-nursery-{self._run}-{hashlib.sha256(repr(kept).encode()).hexdigest()}"
        self._server, self._ready = self._started(name), False
        self._ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while self._ours.connect_ex(name) == errno.ECONNREFUSED:
            time.sleep(0.001)  # another has the name, and does not listen yet

    def _started(self, name):
        """The server, where nobody else has started it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            try:
                listening.bind(name)
            except OSError:
                return None
            listening.listen()
            number = listening.fileno()
            # A script that begins one must not leave it its pipes: who reads them waits for their last holder.
            heard = None if "pytest" in sys.modules else subprocess.DEVNULL
            return subprocess.Popen(
                [sys.executable, "-P", Path(__file__).with_name("nursery_server.py"), str(number), str(self._run)],
                pass_fds=[number], env=BASE | THREADLESS, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=heard,
            )  # fmt: skip

    def is_ready(self):
        """Whether it has imported everything; does not wait."""
        if not self._ready and select.select([self._ours], [], [], 0)[0]:
            self._ready = bool(self._ours.recv(64))
        return self._ready

    def fork(self, asked, streams):
        """A new process with these streams; the line over which its server tells of it."""
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._ours, [pickle.dumps(asked)], [theirs.fileno(), *streams])
        return line

    def close(self):
        """Let the server end, unless others have it too; what it has forked goes on."""
        self._ours.close()
        if self._server is not None and self._run == os.getpid():
            self._server.terminate()
            self._server.wait()


_there = []  # the server, once somebody has asked for it


def begin(words, *, script=None, cwd=None, env=None, piped=False, files=()):
    """Start ``slots`` with these words, or a script.

    Parameters
    ----------
    words : list
        What follows the command's name.
    script : path, optional
        A script of Python. Default: ``slots``.
    cwd : path, optional
        Its working directory. Default: that of this process.
    env : mapping, optional
        Its whole environment. Default: that of this process.
    piped : bool
        Whether to read both streams in one from ``stdout`` while it runs; else `communicate` gives each.
    files : sequence of int
        Open files that it gets too, as 3 and what follows. Then it has to be forked: see `can_fork`.

    Returns
    -------
    Begun or subprocess.Popen
    """
    environment = {"OMP_NUM_THREADS": "1", **(os.environ if env is None else env)}
    words = [os.fsdecode(it) if isinstance(it, bytes) else str(it) for it in words]
    if not can_fork(environment):
        assert not files, "only a fork gets files"
        program = [SLOTS] if script is None else [sys.executable, script]
        errors = subprocess.STDOUT if piped else subprocess.PIPE
        return subprocess.Popen(
            [*program, *words], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    is_ready()
    with contextlib.ExitStack() as closing:
        nothing = closing.enter_context(open(os.devnull, "rb"))
        if piped:
            reading, writing = os.pipe()
            closing.callback(os.close, writing)
            ours, theirs = [os.fdopen(reading, encoding="utf-8")], [writing, writing]
        else:
            ours = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
            theirs = [it.fileno() for it in ours]
        folder = os.fspath(cwd) if cwd is not None else os.getcwd()
        asked = words, None if script is None else str(script), folder, environment
        return Begun(_there[0].fork(asked, [nothing.fileno(), *theirs, *files]), *ours)


def run(words, *, script=None, cwd=None, env=None, timeout=None):
    """Run ``slots`` with these words, or a script, to its end: a `subprocess.CompletedProcess` with text."""
    process = begin(words, script=script, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess([script or SLOTS, *map(str, words)], process.returncode, out, err)


def is_ready():
    """Whether `begin` would fork at once; if not, the server is on its way."""
    if not _there:
        _there.append(Nursery())
        atexit.register(_there[0].close)
    return _there[0].is_ready()


def can_fork(environment=None):
    """Whether nothing that may be read at an import differs from what the server is started with."""
    names = {name for name, _ in (os.environ if environment is None else environment).items() ^ BASE.items()}
    names -= {"OMP_NUM_THREADS"} if environment is None else set()
    return all(map(_read_late, names)) and hasattr(os, "pidfd_open")


def _read_late(name):
    return name in LATE or name.startswith(_LATE_TOO)


def _told(line):
    said = line.recv(64)
    if not said:
        raise RuntimeError("The process from which commands are forked has ended. Look for its error above.")
    return int(said)
