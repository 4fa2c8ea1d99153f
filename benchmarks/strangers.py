"""Files of a stranger by the ten thousand, images and model folders: each is read, or refused in one sentence.

    python benchmarks/strangers.py --output benchmarks/results/strangers.json

``tests/support/fuzz_images.py`` and ``fuzz_folders.py`` change good files, read them in all ways and say what must not
be: an exception, damage taken for the current state, a process or a connection started, a file read elsewhere, many
seconds, a gigabyte. Anything of that ends the measurement. An image takes about a millisecond and a folder a third of a
second, so folders are tried for ``--seconds`` at most, and what was tried is counted.
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


def run(script, *options):
    """Counts of one pass."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(SUPPORT / script), *map(str, options)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {**json.loads(done.stdout), "elapsed_s": round(time.monotonic() - started, 1)}


def main():
    """Attack, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=7200, help="For each of the two passes, at most.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rest = ("--seed", arguments.seed, "--seconds", arguments.seconds)
    images = run("fuzz_images.py", "--cases", arguments.images, *rest)
    print("images", images, flush=True)
    folders = run("fuzz_folders.py", "--cases", arguments.folders, *rest)
    result = {
        "schema": 1,
        "what": "changed images and model folders that are read or refused in one sentence; stops at anything else",
        **made_with(__file__, arguments.seed, ("torch", "numpy", "safetensors", "pillow")),
        "images": images,
        "folders": folders,
    }
    keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
