"""False alarms of `slots.NoveltyDetector` where classes have 1 to 100 examples, by the size of the class asked about.

    python benchmarks/uneven_classes.py --archives FOLDER --data-dir FOLDER --seeds 3

The sets of `slots run transfer`, variant *1 to 100*: 1,000 training rows, then classes thinned to sizes that fall
evenly, on a logarithmic scale, to a hundredth; seven in ten classes are known. At the rate of 5 %, as far as 19 scores
calibrate.
"""

import argparse
from pathlib import Path

import numpy as np

from protocols.data.loading import load_data
from protocols.harness.protocol import Setting
from protocols.runs.transfer.novelty import hold_out
from protocols.runs.transfer.protocol import PROTOCOL
from protocols.runs.transfer.sources import find_sources
from protocols.runs.transfer.variants import make_task
from slots import NoveltyDetector
from slots.errors import UsageError

RATE, VARIANT = 0.05, "1 to 100"
SIZES = {"0 or 1": (0, 1), "2 to 4": (2, 4), "5 to 19": (5, 19), "20 and more": (20, 10**9)}


def measured(task, seed):
    """Alarms among familiar rows, by class size in training; the share found of other classes. None of too few."""
    held, foreign = hold_out(task, seed)
    if held is None:
        return None
    detector = NoveltyDetector(seed=seed).fit(held.x, held.y)
    try:
        alarms, found = detector.is_novel(held.x_test), float(detector.is_novel(foreign).mean())
    except UsageError:
        return None
    sizes = np.bincount(held.y, minlength=held.n_classes)[held.y_test]
    by_size = {name: alarms[(sizes >= low) & (sizes <= high)] for name, (low, high) in SIZES.items()}
    return float(alarms.mean()), {name: it for name, it in by_size.items() if len(it)}, found


def main():
    """Print a line a set, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", default="")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    setting = Setting(load_data("digits"), data_dir=asked.data_dir, options={"archives": asked.archives})
    sources, _ = find_sources(setting, lambda _name: True)
    rows = []
    for source in sources:
        for seed in range(asked.seeds):
            taken = {key: PROTOCOL.defaults[key] for key in ("examples", "tests")}
            task = make_task(source, VARIANT, seed, foreign={}, **taken)
            figures = None if task is None else measured(task, seed)
            if figures is not None:
                rows.append((source.name, *figures))
                print(f"{source.name:24} {seed}  alarms {figures[0]:.1%}  found {figures[2]:.1%}", flush=True)
    print(f"\n{len(rows)} fits: alarms {np.mean([it[1] for it in rows]):.1%}", end="")
    print(f" ({max(it[1] for it in rows):.1%} at most), found of other classes {np.mean([it[3] for it in rows]):.1%}")
    for name in SIZES:
        some = [it[2][name].mean() for it in rows if name in it[2]]
        print(f"classes of {name} examples: {np.mean(some):.1%}")
    for left in sorted({it[0] for it in rows}):
        print(f"without {left}: {np.mean([it[1] for it in rows if it[0] != left]):.1%}")


if __name__ == "__main__":
    main()
