"""Ten thousand kills at random moments of updates, edits and undos: nothing acknowledged is lost, nothing half there.

    python benchmarks/kills.py --kills 10000 --output benchmarks/results/kills.json

Each kill is a SIGKILL of a process that loads a small model with a backbone, does a real update, edit or undo, and
saves it as the next generation, again and again. ``tests/support/kill_update.py`` does the killing and the looking, and
stops at the first generation that is lost, half there or not what was announced. A kill of a process leaves the file
cache in place: what a power failure does is a matter of the order of the syncs, which the tests check.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from protocols.provenance import commit, processor

SCRIPT = Path(__file__).parent.parent / "tests" / "support" / "kill_update.py"
PART = 500  # kills by one process, which then starts afresh with another seed


def main():
    """Kill, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where the models lie. Default: a temporary folder.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    counts, undisturbed, started = Counter(), [], time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for part, first in enumerate(range(0, arguments.kills, PART)):
            kills, seed = min(PART, arguments.kills - first), arguments.seed + part
            command = [sys.executable, str(SCRIPT), f"{folder}/{part}/model", str(kills), str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            del found["seed"]
            undisturbed.append(found.pop("undisturbed_s"))
            counts.update(found)
            print(f"{counts['kills']} kills, {counts['acknowledged']} generations acknowledged", flush=True)
    result = {
        "schema": 1,
        "what": "SIGKILL at random moments of updates, edits, undos; stops at the first generation lost or half there",
        "seed": arguments.seed,
        "threads": 1,
        "command": " ".join(["python", "benchmarks/kills.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")},
        "undisturbed_step_s": sorted(undisturbed)[len(undisturbed) // 2],
        "elapsed_s": round(time.monotonic() - started, 1),
        **dict(sorted(counts.items())),
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
