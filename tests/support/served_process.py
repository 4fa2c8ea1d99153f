"""`slots serve` as people run it: a process of its own, whose memory and exit status can be looked at."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.nursery import Begun, begin


@dataclass
class Served:
    """A running `slots serve`."""

    process: subprocess.Popen | Begun
    address: str = ""
    lines: list = field(default_factory=list)
    """What it printed, both streams."""

    @property
    def pid(self):
        return self.process.pid

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def memory(self, name="VmRSS"):
        """Bytes of resident memory now; `VmHWM` for the most since `forget_peak`."""
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024

    def busy(self):
        """Seconds of processor time that it took since its start, all threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self):
        """Let `VmHWM` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def stop(self, number=signal.SIGTERM, patience=60):
        """Ask it to stop; its exit status and the seconds it took."""
        asked = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(patience), time.monotonic() - asked


COMMAND = ("-m", "protocols.commands")
"""What Python runs."""


@contextmanager
def served(*arguments, environment=None, start_seconds=120, program=COMMAND):
    """Start it, wait until it takes requests, and kill it at the end if nobody stopped it.

    Without a ``program`` it is forked from a process that has imported everything (`support.nursery`): for tests that
    are not about its start or its memory.
    """
    words = ["serve", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    if program is None:
        process = begin(words, env=environment, piped=True)
    else:
        process = subprocess.Popen(
            [sys.executable, *program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    it, up = Served(process), threading.Event()

    def read():
        for line in process.stdout:
            it.lines.append(line)
            found = re.search(r"Serving .* at (http://\S+)", line)
            if found:
                it.address = found[1].replace("0.0.0.0", "127.0.0.1")
                up.set()
        up.set()

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        assert up.wait(start_seconds), it.lines
        assert it.address, it.lines
        yield it
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
