"""How often a fitted model is wrong and matched under the attacks of ``slots run robustness``, by each rule.

Usage::

    slots fit --data mnist --robust linf:0.3 --out runs/linf
    python benchmarks/certified_matches.py --model runs/linf --data mnist --examples 500 --eps 0.1,0.2
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from protocols.data.loading import load_data
from protocols.recipes.building import load_model
from protocols.runs.adversarial.defended import Defended, RobustTask
from protocols.runs.adversarial.robustness import attacked_rows
from slots.progress import silent
from slots.robust import RobustConfig


def main():
    """Attack the first of the shuffled test images, and print one line a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--eps", default="0.1,0.2")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = load_data(arguments.data, data_dir=arguments.data_dir)
    model = load_model(arguments.model, device="cpu")
    model.head.requires_grad_(False)
    chosen = np.random.default_rng(arguments.seed).permutation(len(data.x_test))[: arguments.examples]
    rows = torch.from_numpy(data.x_test[chosen].reshape(len(chosen), -1)).float() / 255
    head = Defended("slots", model.head, RobustConfig(), 0.0)
    task = RobustTask(rows, torch.from_numpy(data.y_test[chosen]), [head], {}, len(data.class_names))
    option = {key: getattr(arguments, key) for key in ("examples", "steps", "restarts")}
    for eps in map(float, arguments.eps.split(",")):
        started = time.process_time()
        for row in attacked_rows(task, eps, option, arguments.seed, silent):
            shares = "  ".join(f"{name} {share:.2%}" for name, share in row.figures.items())
            print(f"{row.group}  {row.method}: {shares}")
        print(f"{time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
