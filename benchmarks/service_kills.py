"""Ten thousand kills of the whole service under load: nothing acknowledged is lost, nothing is done twice.

    python benchmarks/service_kills.py --kills 10000 --output benchmarks/results/service_kills.json

Each kill is a SIGKILL of `slots serve` at a random moment: while people send items, label them, work through query
lists, start updates and undo them, or while it starts. ``tests/support/kill_service.py`` kills, starts it again and
holds what is there against what was acknowledged; it stops at the first difference. The service is forked from a
process that has imported everything, since an interpreter of its own takes seconds to import torch. A kill of a process
leaves the file cache in place: it shows that nothing is acknowledged too early and that every start goes on from what
was left, not what a disk does when the power fails. What is counted so far is written after each part.

    python benchmarks/service_kills.py --postgresql --kills 200 --output benchmarks/results/postgresql_stops.json

stops PostgreSQL at once (``pg_ctl stop -m immediate``) under a service that goes on: ``stop_postgresql.py`` there.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SUPPORT = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(SUPPORT.parent))

from support.recorded import keep, made_with  # noqa: E402

PART = {"kills": 200, "stops": 25}  # by one process, which then starts afresh with another seed
SCRIPT = {"kills": "kill_service.py", "stops": "stop_postgresql.py"}
WHAT = {
    "kills": "SIGKILL of the whole service under load; stops at anything lost, half there or done twice",
    "stops": "immediate stops of PostgreSQL under a service's load; stops at anything lost, half there or done twice",
}


def one_part(kind, n, seed, folder):
    """Counts of so many kills, or stops."""
    command = [sys.executable, str(SUPPORT / SCRIPT[kind]), f"--{kind}", str(n), "--seed", str(seed)]
    command += [] if folder is None else ["--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Counter(json.loads(done.stdout))


def result(kind, counts, arguments, elapsed_s):
    """What is written: the counts, and what they were made with."""
    return {
        "schema": 1,
        "what": WHAT[kind],
        **made_with(__file__, arguments.seed, ("torch", "sqlalchemy", "fastapi", "uvicorn")),
        "elapsed_s": round(elapsed_s, 1),
        "lost": 0,  # else there would be no result
        "doubled": 0,
        **dict(sorted(counts.items())),
    }


def main():
    """Kill, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000, help="Or stops.")
    parser.add_argument("--postgresql", action="store_true", help="Stop PostgreSQL, not the service.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no new part after so long.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where the data lie. Default: a temporary folder.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    kind = "stops" if arguments.postgresql else "kills"
    counts, started, part = Counter(), time.monotonic(), 0
    while counts[kind] < arguments.kills and time.monotonic() - started < arguments.seconds:
        n = min(PART[kind], arguments.kills - counts[kind])
        counts += one_part(kind, n, 1000 * arguments.seed + part, arguments.folder)
        part += 1
        print(f"{counts[kind]} {kind}, {counts['items acknowledged']} items acknowledged", flush=True)
        found = result(kind, counts, arguments, time.monotonic() - started)
        keep(found, arguments.output)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
