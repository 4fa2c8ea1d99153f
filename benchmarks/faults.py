"""The command line killed, refused by the disk, cut off from power at each of its writes: nothing acknowledged is lost.

    python benchmarks/faults.py --output benchmarks/results/faults.json

Fifteen commands (fits, updates, queries, edits, undo, prune, tables, pages) are killed at random moments, then killed
before and after each operation that changes a file, and each fails with ENOSPC and EIO, once and for good. Some of
these cases run in an interpreter of their own, the others in a fork of one. Then power is lost after each operation,
in many states that POSIX allows. ``tests/support/kill_commands.py`` and ``power_loss.py`` do it and say what
is held against what; a pass with anything that must not be ends the measurement. Linux with a C compiler.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUPPORT = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(SUPPORT.parent))

from support import faults as library  # noqa: E402
from support.recorded import keep, made_with  # noqa: E402


def run(script, *options):
    """Counts of one pass."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(SUPPORT / script), *map(str, options)],
            env=library.environment(library.built(folder)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    print(script, *options, done.stdout.strip(), flush=True)
    return json.loads(done.stdout)


def main():
    """Attack, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-random", type=int, default=500, help="Kills at random moments.")
    parser.add_argument("--seconds", type=float, default=3600, help="For each of the three passes, at most.")
    parser.add_argument("--own", type=int, default=40, help="Cases in an interpreter of their own, seconds each.")
    parser.add_argument("--states", type=int, default=1000, help="States after a loss of power, a command.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started, seed = time.monotonic(), ("--seed", arguments.seed)
    limit = ("--seconds", arguments.seconds)
    faults = run("kill_commands.py", "--at-random", arguments.at_random, *seed, *limit)
    few = [word for name in ("update", "undo", "predict") for word in ("--only", name)]
    own = run("kill_commands.py", "--own", "--cases", arguments.own, *few, *seed, *limit)
    power = run("power_loss.py", "--states", arguments.states, *seed, *limit)
    result = {
        "schema": 1,
        "what": "the command line killed, refused by the disk, cut off from power; stops at anything lost or half",
        **made_with(__file__, arguments.seed, ("torch", "numpy", "safetensors")),
        "elapsed_s": round(time.monotonic() - started, 1),
        "at_random_and_at_each_operation": faults,
        "in_an_interpreter_of_its_own": own,
        "power_loss": power,
    }
    keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
