"""Files of a stranger by the ten thousand, images and model folders: each is read, or refused in one sentence.

    python benchmarks/strangers.py --output benchmarks/results/strangers.json
    python benchmarks/strangers.py --add --seconds 3600 --output benchmarks/results/strangers.json

``tests/support/fuzz_images.py`` and ``fuzz_folders.py`` change good files, read them in all ways and say what must not
be: an exception, damage taken for the current state, a process or a connection started, a file read elsewhere, many
seconds, a gigabyte. Anything of that ends the measurement. An image takes about a millisecond and a folder a third of a
second, so folders are tried part by part, the result is written after each, and the second command goes on where the
record of its seed ends. Each pass stands there with its commit and machine.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SUPPORT = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(SUPPORT.parent))

from support.recorded import keep, made_with  # noqa: E402

PART = {"images": 20_000, "folders": 500}  # cases at a time
SCRIPTS = {"images": "fuzz_images.py", "folders": "fuzz_folders.py"}
LARGEST = ("slowest_s", "grown_mib")  # of all parts the largest; all else adds up


def one_part(kind, first, cases, seed):
    """Counts of some cases; an error where any of them did what must not be."""
    options = ("--first", first, "--cases", cases, "--seed", seed, "--seconds", 10**6)
    done = subprocess.run(
        [sys.executable, str(SUPPORT / SCRIPTS[kind]), *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def joined(one, other):
    """Counts of two parts together."""
    return {
        name: max(one.get(name, 0), other.get(name, 0)) if name in LARGEST else one.get(name, 0) + other.get(name, 0)
        for name in {**one, **other}
    }


def main():
    """Attack, count, write after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no new part after so long.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="Go on where --output ends.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.add and arguments.output is None:
        parser.error("--add needs --output, the result that it adds to")
    started = time.monotonic()
    result = {
        "schema": 2,
        "what": "changed images and model folders that are read or refused in one sentence; stops at anything else",
        "seed": arguments.seed,
        "images": {"cases": 0},
        "folders": {"cases": 0},
        "passes": [],
    }
    if arguments.add and arguments.output.exists():
        result = json.loads(arguments.output.read_text())
        if (result["schema"], result["seed"]) != (2, arguments.seed):
            parser.error(
                f"--add needs a result of schema 2 and seed {arguments.seed}, got another in {arguments.output}"
            )
    this = {
        **made_with(__file__, arguments.seed, ("torch", "numpy", "safetensors", "pillow")),
        "images": 0,
        "folders": 0,
    }
    earlier = result["passes"]
    for kind, size in PART.items():
        while (left := getattr(arguments, kind) - result[kind]["cases"]) > 0:
            if time.monotonic() - started > arguments.seconds:
                break
            found = one_part(kind, result[kind]["cases"], min(size, left), arguments.seed)
            this[kind] += found["cases"]
            this["elapsed_s"] = round(time.monotonic() - started, 1)
            result = {**result, kind: joined(result[kind], found), "passes": [*earlier, this]}
            keep(result, arguments.output)
            print(kind, result[kind], flush=True)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
