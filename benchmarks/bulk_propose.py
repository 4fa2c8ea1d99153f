"""Which of a million rows to label first, shard by shard: how fast, in how much memory, and what killed workers cost.

    python benchmarks/bulk_propose.py --output benchmarks/results/bulk_propose.json

Rows of a mixture of Gaussians on the disk, as one ``.npy``, and a model of four in five of its classes; so some fifth
of the rows is unmatched. ``slots propose --shards`` asks for labels in one process, whose peak of resident memory is
taken; cut into other shards; and with two workers, of which one is killed (SIGKILL) each time that another shard of a
pass is done. All must choose the same rows, and the killed ones leave the same bytes. ``SlotModel.propose`` on all rows
in one memory, and as many unmatched rows drawn by chance, stand beside it. True labels say what a label spread to its
group is worth.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.processes import killed, measured
from support.recorded import keep, made_with

import slots
from slots.training import TrainConfig

BLOCK = 100_000
SPREAD = 0.5
MADE = (".run/unmatched/*.parquet", ".run/covered/*.npy", "groups/*.parquet")  # by each pass over a shard
WHOLE = """
import json, sys, numpy as np
from slots.model.slot_model import SlotModel
found = SlotModel.load(sys.argv[1]).propose(np.load(sys.argv[2]), budget=int(sys.argv[3]))
print(json.dumps({"covered": found.covered, "bound": found.bound, "unmatched": len(found.unmatched)}))
"""


def write_rows(path: Path, n: int, features: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the rows block by block; gives the first of them, and the labels of all."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features)).astype(np.float32)
    labels = rng.integers(0, classes, n)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, features))
    for start in range(0, n, BLOCK):
        mine = labels[start : start + BLOCK]
        out[start : start + BLOCK] = centres[mine] + rng.normal(0, SPREAD, (len(mine), features)).astype(np.float32)
    out.flush()
    return out[:20_000].copy(), labels


def command(folder: Path, out: Path, rows: int, budget: int, *more: object) -> list[str]:
    """The command line of a run."""
    words = ["propose", folder / "m", "--shards", folder / "x.npy", "--rows", rows, "--budget", budget, "--out", out]
    return [sys.executable, "-m", "protocols.commands", *map(str, [*words, "--json", *more])]


def files(out: Path) -> dict[str, bytes]:
    """What a user sees of a run."""
    return {path.name: path.read_bytes() for path in (out / "queries.csv", *sorted(out.glob("groups/*.parquet")))}


def worth(out: Path, labels: np.ndarray) -> dict[str, float]:
    """Labels of the queries given to their groups: how many rows, and the share that is right."""
    with (out / "queries.csv").open(newline="") as file:
        asked = labels[[int(it["row"]) for it in csv.DictReader(file)]]
    table = pq.read_table(out / "groups", columns=["row", "query"]).drop_null()
    right = asked[table["query"].to_numpy()] == labels[table["row"].to_numpy()]
    return {"rows": len(right), "right": round(float(right.mean()), 4), "classes": len(set(asked.tolist()))}


def by_chance(out: Path, budget: int, seed: int) -> int:
    """Unmatched rows that as many candidates drawn by chance cover, the mean of 20 draws."""
    rng, covered = np.random.default_rng(seed), np.zeros(20, int)
    paths = sorted((out / ".run" / "covered").glob("*.npy"))
    n = np.load(paths[0], mmap_mode="r").shape[0]
    drawn = [rng.choice(n, min(n, budget), replace=False) for _ in covered]
    for path in paths:
        bits = np.load(path)
        for place, few in enumerate(drawn):
            covered[place] += int(np.bitwise_count(np.bitwise_or.reduce(bits[few], axis=0)).sum())
    return int(covered.mean())


def main() -> None:
    """Measure, hold one against the other, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000, help="Of a shard.")
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows, budget = arguments.rows, arguments.budget
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, labels = write_rows(folder / "x.npy", arguments.n, arguments.features, arguments.classes, arguments.seed)
        known = labels[: len(x)] < 0.8 * arguments.classes
        config = TrainConfig(epochs=2, slots_per_class=1, seed=arguments.seed)
        model, _ = slots.fit(x[known], labels[: len(x)][known], config=config)
        model.save(folder / "m")
        one, told = measured(command(folder, folder / "one", rows, budget))
        coarse, other = measured(command(folder, folder / "coarse", 7 * rows, budget))
        words = [sys.executable, "-c", WHOLE, str(folder / "m"), str(folder / "x.npy"), str(budget)]
        whole, at_once = measured(words)
        words = command(folder, folder / "many", rows, budget, "--workers", 2)
        many = killed(words, folder / "many", MADE, kills=arguments.kills, seed=arguments.seed, least=2)
        same = files(folder / "one") == files(folder / "many")
        spread, chance = worth(folder / "one", labels), by_chance(folder / "one", budget, arguments.seed)
        aside = sum(path.stat().st_size for path in (folder / "one" / ".run").glob("*/*.*"))
        told, other, at_once = (json.loads(it) for it in (told, other, at_once))
        cut = [(folder / it / "queries.csv").read_bytes() for it in ("one", "coarse")]
    if not same or cut[0] != cut[1] or told["counts"] != other["counts"]:
        raise SystemExit("Other workers or shards gave other answers.")
    if told["unmatched"] != at_once["unmatched"] or many["shards_redone"] > many["kills"]:
        raise SystemExit(f"{told} beside {at_once}, {many}")
    result = {
        "schema": 1,
        "what": "rows to label first, chosen over shards by one process and by two killed ones; stops at a difference",
        **made_with(__file__, arguments.seed, ("torch", "numpy", "pyarrow")),
        "rows": arguments.n,
        "features": arguments.features,
        "slots": model.head.n_slots,
        "shards": told["shards"],
        "unmatched": told["unmatched"],
        "proposal": {key: told[key] for key in ("candidates", "queries", "covered", "bound", "radius", "purity")},
        "labels_spread_to_groups": spread,
        "covered_by_chance": chance,
        "alone": one,
        "alone_larger_shards": {"shards": other["shards"], **coarse},
        "aside_mib": aside >> 20,
        "all_rows_in_one_memory": {**whole, **at_once},
        "killed": {**many, "different": 0},
        "load_1_min": round(os.getloadavg()[0], 1),
    }
    keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
