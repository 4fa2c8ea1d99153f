"""The command line killed, refused by the disk, cut off from power at each of its writes: nothing acknowledged is lost.

    python benchmarks/faults.py --output benchmarks/results/faults.json
    python benchmarks/faults.py --add --output benchmarks/results/faults.json

Fifteen commands (fits, updates, queries, edits, undo, prune, tables, pages) are killed at random moments, then killed
before and after each operation that changes a file, and each fails with ENOSPC and EIO, once and for good. Some of
these cases run in an interpreter of their own, the others in a fork of one. Then power is lost after each operation,
in many states that POSIX allows. ``tests/support/kill_commands.py`` and ``power_loss.py`` do it and say what
is held against what; a pass with anything that must not be ends the measurement. The result is written after each
pass, and the second command makes those that are missing. Linux with a C compiler.
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


def passes(arguments):
    """Name, script and options of each pass."""
    limits = ("--seed", arguments.seed, "--seconds", arguments.seconds)
    few = [word for name in ("update", "undo", "predict") for word in ("--only", name)]
    own = ("--own", "--cases", arguments.own, *few)
    return {
        "at_random_and_at_each_operation": ("kill_commands.py", "--at-random", arguments.at_random, *limits),
        "in_an_interpreter_of_its_own": ("kill_commands.py", *own, *limits),
        "power_loss": ("power_loss.py", "--states", arguments.states, *limits),
    }


def main():
    """Attack, count, write after each pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-random", type=int, default=500, help="Kills at random moments.")
    parser.add_argument("--seconds", type=float, default=3600, help="For each of the three passes, at most.")
    parser.add_argument("--own", type=int, default=40, help="Cases in an interpreter of their own, seconds each.")
    parser.add_argument("--states", type=int, default=1000, help="States after a loss of power, a command.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="Make the passes that --output has not.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.add and arguments.output is None:
        parser.error("--add needs --output, the result that it adds to")
    result = {
        "schema": 2,
        "what": "the command line killed, refused by the disk, cut off from power; stops at anything lost or half",
    }
    if arguments.add and arguments.output.exists():
        result = json.loads(arguments.output.read_text())
    for name, (script, *options) in passes(arguments).items():
        if name not in result:
            started = time.monotonic()
            found = run(script, *options)
            with_what = made_with(__file__, arguments.seed, ("torch", "numpy", "safetensors"))
            result[name] = {**with_what, "elapsed_s": round(time.monotonic() - started, 1), "found": found}
            keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
