"""From the command `slots serve MODEL` to the first 200 of `/v2/health/ready`, beside what importing torch takes.

    python benchmarks/service_start.py --output benchmarks/results/service_start.json

A model of scikit-learn's digits is served and stopped again, as many times as there are rounds; each round also imports
torch alone, and `--before` names another checkout whose service starts in each round too. Every second round goes
backwards. Bytecode is kept, as it is where the package is installed; a first round, which writes it and brings the
files into the system's cache, does not count.
"""

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from service import commit_of, models

from protocols.provenance import commit, processor, versions

HERE = Path(__file__).parent.parent
TORCH = (
    "import os, time; t = time.perf_counter(); import torch; print(time.perf_counter() - t, flush=True); os._exit(0)"
)
"""Its end, which takes apart what was imported, is not part of a start."""


def environment(checkout):
    """Of a process that runs the code of a checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}


def importing():
    """Seconds to import torch."""
    command = [sys.executable, "-c", TORCH]
    return float(subprocess.run(command, env=environment(HERE), capture_output=True, text=True, check=True).stdout)


def start(checkout, model):
    """Seconds until a service is ready, of the clock and of the processor."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-P", str(checkout / "cli.py"), "serve", str(model), "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment(checkout), stdout=subprocess.DEVNULL)
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("The service ended.")
            time.sleep(0.01)
        clock = time.perf_counter() - began
        words = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return clock, (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def answers(port):
    """Whether the service is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def of(times):
    """Figures of some seconds."""
    return {"median": round(median(times), 2), "least": round(min(times), 2), "most": round(max(times), 2)}


def main():
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, help="Another checkout, to be started beside this one.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    before = arguments.before and arguments.before.resolve()
    checkouts = {"now": HERE} | ({"before": before} if before else {})
    loads, torch_alone, found = [os.getloadavg()[0]], [], {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        models(Path(folder))
        model = Path(folder) / "digits"
        for place in range(arguments.rounds + 1):
            for name in list(checkouts)[:: -1 if place % 2 else 1]:
                found[name].append(start(checkouts[name], model))
            torch_alone.append(importing())
            print(*(f"{name} {times[-1][0]:.2f} s," for name, times in found.items()), f"torch {torch_alone[-1]:.2f} s")
            loads.append(os.getloadavg()[0])
    result = {
        "schema": 1,
        "what": "seconds from the command slots serve to the first 200 of /v2/health/ready",
        "command": f"python benchmarks/service_start.py --rounds {arguments.rounds}"
        + (" --before CHECKOUT" if before else ""),
        "commit": commit(),
        "before": before and commit_of(before),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": versions("torch", "fastapi", "sqlalchemy", "numba"),
        "load_average_1min": [round(it, 1) for it in loads],
        "rounds": arguments.rounds,
        "torch_import_s": of(torch_alone[1:]),
        "ready_s": {name: of([clock for clock, _ in times[1:]]) for name, times in found.items()},
        "processor_s": {name: of([busy for _, busy in times[1:]]) for name, times in found.items()},
    }
    print(json.dumps({it: result[it] for it in ("ready_s", "torch_import_s", "load_average_1min")}, indent=1))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
