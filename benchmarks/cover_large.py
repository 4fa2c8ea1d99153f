"""`class_cover` of many examples in many classes, beside the bare products that it cannot do without.

    python benchmarks/cover_large.py --output benchmarks/results/cover_large.json

Random unit rows, seeded. Thresholds need the product of every pair once: half the matrix, in tiles of 1,024. Of these
tiles one in sixteen is multiplied before and after, and the time scaled; ``ratio`` is processor time over that.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

from protocols import provenance
from slots.cover import class_cover

TILE, ONE_IN = 1024, 16


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    generator = torch.Generator().manual_seed(asked.seed)
    x = torch.nn.functional.normalize(torch.randn(asked.examples, asked.features, generator=generator))
    y = torch.randint(0, asked.classes, (asked.examples,), generator=generator)
    class_cover(x[:3000], y[:3000])  # compiles
    before = bare_products(x)
    start, clock = time.process_time(), time.perf_counter()
    found = class_cover(x, y)
    cpu, clock = time.process_time() - start, time.perf_counter() - clock
    bare = (before + bare_products(x)) / 2
    result = {
        "schema": 1,
        "command": " ".join(["python", "benchmarks/cover_large.py", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "machine": provenance.hardware(),
        "versions": provenance.versions(),
        "examples": asked.examples,
        "features": asked.features,
        "classes": asked.classes,
        "seed": asked.seed,
        "slots": len(found.picked),
        "cpu_s": round(cpu, 1),
        "clock_s": round(clock, 1),
        "bare_products_cpu_s": round(bare, 1),
        "ratio": round(cpu / bare, 2),
        "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result, indent=1))
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(result, indent=1) + "\n")


def bare_products(x):
    """Processor seconds of the products of all pairs of tiles, from one in sixteen of them."""
    starts = range(0, len(x), TILE)
    pairs = [(i, j) for i in starts for j in starts if j >= i]
    start = time.process_time()
    for i, j in pairs[::ONE_IN]:
        x[i : i + TILE] @ x[j : j + TILE].T
    return (time.process_time() - start) * len(pairs) / len(pairs[::ONE_IN])


if __name__ == "__main__":
    main()
