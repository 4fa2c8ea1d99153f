"""A bulk run over a million rows or more: how fast, in how much memory, and what fifty killed workers cost.

    python benchmarks/bulk.py --output benchmarks/results/bulk.json
    python benchmarks/bulk.py --engine ray --output benchmarks/results/bulk-ray.json

Rows of a mixture of Gaussians on the disk, as one ``.npy``, and a model of its classes. ``slots predict --shards``
answers them in one process, whose peak of resident memory is taken; then with two workers, of which one is killed
(SIGKILL) each time that another shard is done, fifty times. Every file must be byte for byte that of the first run, and
no more shards may be begun again than workers were killed. scikit-learn's nearest centroid on the same rows, in
blocks of the same size, says what reading and products alone take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestCentroid

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.processes import killed, measured
from support.recorded import keep, made_with

import slots
from slots.training import TrainConfig

BLOCK = 100_000


def write_rows(path: Path, n: int, features: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the rows block by block; gives the first of them with their labels, to fit on."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features)).astype(np.float32)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, features))
    for start in range(0, n, BLOCK):
        labels = rng.integers(0, classes, min(BLOCK, n - start))
        rows = centres[labels] + rng.normal(0, 0.7, (len(labels), features)).astype(np.float32)
        out[start : start + len(labels)] = rows
        if start == 0:
            first = rows[:20_000].copy(), labels[:20_000]
    out.flush()
    return first


def command(folder: Path, out: Path, rows: int, *more: object) -> list[str]:
    """The command line of a run."""
    words = ["predict", folder / "m", "--shards", folder / "x.npy", "--rows", rows, "--out", out, *more]
    return [sys.executable, "-m", "protocols.commands", *map(str, words)]


def peer(folder: Path, x: np.ndarray, y: np.ndarray, rows: int) -> float:
    """Processor time of scikit-learn's nearest centroid over the same blocks of the same file."""
    made = NearestCentroid().fit(x, y)
    mapped, started = np.load(folder / "x.npy", mmap_mode="r"), time.process_time()
    for start in range(0, len(mapped), rows):
        made.predict(mapped[start : start + rows])
    return round(time.process_time() - started, 1)


def main() -> None:
    """Measure, hold one against the other, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000, help="Of a shard.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", default="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = write_rows(folder / "x.npy", arguments.n, arguments.features, arguments.classes, arguments.seed)
        model, _ = slots.fit(x, y, config=TrainConfig(epochs=2, slots_per_class=1, seed=arguments.seed))
        model.save(folder / "m")
        one, _ = measured(command(folder, folder / "one", arguments.rows))
        centroids = peer(folder, x, y, arguments.rows)
        words = command(folder, folder / "many", arguments.rows, "--workers", 2, "--engine", arguments.engine)
        many = killed(
            words, folder / "many", ("*.parquet",), kills=arguments.kills, seed=arguments.seed, engine=arguments.engine
        )
        files = sorted(path.name for path in (folder / "one").glob("*.parquet"))
        there = sorted(path.name for path in (folder / "many").glob("*.parquet"))
        different = sum((folder / "one" / it).read_bytes() != (folder / "many" / it).read_bytes() for it in files)
    if files != there or different or many["shards_redone"] > many["kills"]:
        raise SystemExit(f"{different} of {len(files)} files differ, {many['shards_redone']} shards were done again.")
    result = {
        "schema": 1,
        "what": "rows answered by one process, and by two workers that are killed; stops at any difference",
        **made_with(__file__, arguments.seed, ("torch", "numpy", "pyarrow")),
        "rows": arguments.n,
        "features": arguments.features,
        "slots": model.head.n_slots,
        "shards": len(files),
        "alone": one,
        "nearest_centroid_processor_s": centroids,
        "ratio_to_nearest_centroid": round(one["processor_s"] / centroids, 2),
        "killed": {**many, "engine": arguments.engine, "missing": 0, "different": 0},
        "load_1_min": round(os.getloadavg()[0], 1),
    }
    keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
