"""Novelty of models fitted on a few hundred rows: whether they offer 5 % false alarms, and keep it.

Of each archive (``x_train``, ``y_train``) seven in ten classes are known, of many at most forty are used; so many rows
are fitted, up to a thousand others of the same classes are asked, and up to five hundred of the other classes. One JSON
line a fit, then the means. Usage::

    python benchmarks/few_rows.py mnist.npz clinc150.npz --rows 200 700 --seeds 2
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from protocols.data.arrays import load_archive
from protocols.harness.detection_metrics import quality
from protocols.runs.transfer.variants import rows_of
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig
from slots.training.fitting import fit

RATE = 0.05
MOST_CLASSES, ASKED, FOREIGN = 40, 1000, 500


def measure(x: Any, y: Any, n: int, seed: int) -> dict[str, float | None]:
    """Fit on so many rows, and count alarms on others."""
    rng = np.random.default_rng([seed, n])
    classes = rng.permutation(np.unique(y))[:MOST_CLASSES]
    known, new = np.split(classes, [max(2, round(0.7 * len(classes)))])
    pool = rng.permutation(np.flatnonzero(np.isin(y, known)))
    foreign = rng.permutation(np.flatnonzero(np.isin(y, new)))[:FOREIGN]
    fitted, asked = pool[:n], pool[n : n + ASKED]
    started = time.process_time()
    labels = np.unique(y[fitted], return_inverse=True)[1]
    model, _ = fit(rows_of(x[fitted]), labels, config=AutoConfig(TrainConfig(seed=seed)))
    found: dict[str, float | None] = {"seconds": round(time.process_time() - started, 2), "alarms": None}
    if model.novelty is not None and RATE * (len(model.novelty.calibration) + 1) >= 1:
        familiar, others = (model.assess_novelty(rows_of(x[rows]), false_alarm_rate=RATE) for rows in (asked, foreign))
        found |= {"alarms": float(familiar.novel.mean()), "found": float(others.novel.mean())}
        found["auroc"] = quality(familiar.scores, others.scores).auroc
    return found


def main() -> None:
    """Measure all, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--rows", nargs="+", type=int, default=[200, 700])
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    found = []
    for path in args.archives:
        data = load_archive(path)
        for n in args.rows:
            for seed in range(args.seeds):
                row = {"data": data.name, "rows": n, "seed": seed, **measure(data.x_train, data.y_train, n, seed)}
                found.append(row)
                print(json.dumps(row), flush=True)
    offered = [row for row in found if row["alarms"] is not None]
    for name in ("seconds", "alarms", "found", "auroc"):
        values = [row[name] for row in offered]
        print(f"{name}: mean {np.mean(values):.4f}, standard error {np.std(values, ddof=1) / len(values) ** 0.5:.4f}")
    p = ttest_1samp([row["alarms"] for row in offered], RATE, alternative="greater").pvalue
    print(f"{len(offered)} of {len(found)} fits offer {RATE:.0%}; more alarms than promised: p = {p:.3g}")


if __name__ == "__main__":
    main()
