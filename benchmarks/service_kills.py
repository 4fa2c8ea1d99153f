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

    python benchmarks/service_kills.py --kills 2000 --seed 1 --add --output benchmarks/results/service_kills.json

adds a pass of another seed to what is on record: ten thousand kills take hours. Each pass stands there with its seed,
commit and machine.
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

STARTED = "each service is a fork of a process that has imported everything and looked at the routes"


def one_part(kind, n, seed, folder):
    """Counts of so many kills, or stops."""
    command = [sys.executable, str(SUPPORT / SCRIPT[kind]), f"--{kind}", str(n), "--seed", str(seed)]
    command += [] if folder is None else ["--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Counter(json.loads(done.stdout))


def on_record(arguments):
    """Passes and counts that a result holds already; nothing without ``--add``."""
    if not arguments.add:
        return [], Counter()
    found = json.loads(arguments.output.read_text())
    if arguments.seed in [it["seed"] for it in found["passes"]]:
        raise SystemExit(f"Seed {arguments.seed} is on record already. Give another one with --seed.")
    return found["passes"], Counter(found["counts"])


def result(kind, passes, counts):
    """What is written: the counts of all passes, and what each was made with."""
    return {
        "schema": 2,
        "what": WHAT[kind],
        "lost": 0,  # else there would be no result
        "doubled": 0,
        "counts": dict(sorted(counts.items())),
        "passes": passes,
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
    parser.add_argument("--add", action="store_true", help="Add to what --output holds.")
    arguments = parser.parse_args()
    if arguments.add and arguments.output is None:
        parser.error("--add needs --output, the result that it adds to")
    kind = "stops" if arguments.postgresql else "kills"
    passes, before = on_record(arguments)
    counts, started, part = Counter(), time.monotonic(), 0
    while counts[kind] < arguments.kills and time.monotonic() - started < arguments.seconds:
        n = min(PART[kind], arguments.kills - counts[kind])
        counts += one_part(kind, n, 1000 * arguments.seed + part, arguments.folder)
        part += 1
        print(f"{counts[kind]} {kind}, {counts['items acknowledged']} items acknowledged", flush=True)
        made = made_with(__file__, arguments.seed, ("torch", "sqlalchemy", "fastapi", "uvicorn"))
        this = {**made, kind: counts[kind], "started": STARTED, "elapsed_s": round(time.monotonic() - started, 1)}
        found = result(kind, [*passes, this], before + counts)
        keep(found, arguments.output)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
