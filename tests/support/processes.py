"""Commands as processes: what they take, who works below them, as Linux lists them, and what kills of those cost."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

_WAIT = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def measured(words):
    """Run a command to its end: seconds, processor time, the peak of its memory, and the lines that it printed.

    By way of a small process: one starts with the peak of the process that it was forked from, as Linux counts it.
    """
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _WAIT, *words], stdout=subprocess.PIPE, text=True, check=True)
    *said, last = done.stdout.splitlines()
    status, seconds, peak = json.loads(last)
    if status:
        raise SystemExit(f"{' '.join(words)[:200]} ended with status {status}.")
    elapsed = time.monotonic() - started
    return {"elapsed_s": round(elapsed, 1), "processor_s": round(seconds, 1), "peak_mib": peak // 1024}, "\n".join(said)


def killed(words, out, made, *, kills, seed, engine="processes", least=1):
    """Run a command over shards to its end, one of its workers killed whenever another shard is done; counts.

    ``made`` are patterns, within the folder ``out``, of the files that a shard has once it is done. With fewer workers
    than ``least`` none is killed: between two passes over shards a single one is the server that forks them.
    """
    rng, done, dead, begun, started = random.Random(seed), 0, 0, {}, time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.01)
        for path in out.glob("**/leases/*.tries"):
            with contextlib.suppress(FileNotFoundError):
                begun[path] = max(begun.get(path, 0), path.stat().st_size)
        now, workers = sum(len(list(out.glob(it))) for it in made), workers_of(process.pid, engine)
        if now > done and len(workers) >= least and dead < kills:
            os.kill(rng.choice(workers), signal.SIGKILL)
            done, dead = now, dead + 1
    if process.returncode:
        raise SystemExit(f"The run with kills ended with status {process.returncode}.")
    redone = sum(it - 1 for it in begun.values() if it > 1)
    return {"kills": dead, "shards_redone": redone, "elapsed_s": round(time.monotonic() - started, 1)}


def workers_of(process, engine="processes"):
    """Processes that work on the shards of a command: forks of its server, or what Ray runs the task in."""
    return [it for it in _leaves(process) if _is_worker(_command(it), engine)]


def _is_worker(words, engine):
    return "ray::" in words and "_ray_worker" in words if engine == "ray" else "tracker" not in words and words != ""


def _leaves(process):
    with contextlib.suppress(OSError):
        below = [int(it) for it in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return [it for child in below for it in (_leaves(child) or [child])] if below else []
    return []


def _command(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    return ""
