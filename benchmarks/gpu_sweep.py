"""Options of `positive`, `parts`, `unfolding` and `--readable` on CIFAR-10: many fits at once on a GPU.

    python benchmarks/gpu_sweep.py --workers 8 --seconds 300 --output benchmarks/results/gpu_sweep.json
    python benchmarks/gpu_sweep.py --device cpu --images 300 --epochs 1 --rows "positive, soft gates"   # the same code

Each row is a fit in a process of its own, in the order of `ROWS`; several run at once, since one alone leaves most of a
large GPU idle. After ``--seconds`` none begins, and those that run stop at the end of a step. Accuracies are those of
the whole test part. A row of parts is trained once, and its parts are chosen in several ways (`CHOICES`). Rows of
``--readable`` are measured as by ``benchmarks/readable.py``. Models lie in ``--models``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from readable import measured

from protocols import provenance
from protocols.app.fit import fit_and_save
from protocols.data.loading import load_data
from protocols.recipes import load_model, plan
from protocols.recipes.building import build_backbone
from protocols.recipes.recipes import Recipe
from protocols.summaries.evaluation import evaluate
from slots.parts.choosing import PartConfig, choose_parts
from slots.parts.fitting import final_config
from slots.parts.training import train_on_parts
from slots.progress import silent
from slots.training.fitting import fit

Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
LONG = {"epochs": 30, "batch_size": 500, "label_smoothing": 0.1}
SHORT = {"epochs": 14, "batch_size": 250, "label_smoothing": 0.0, "matrix_lr": 0.24}
MIDDLE = {"widths": [64, 128, 256]}
DEEP = {"widths": [64, 128, 192, 256, 256], "windows": [3, 3, 3, 3, 4], "strides": [1, 2, 2, 2, 4]}
PARTS = {"epochs": 60, "batch_size": 500}
READABLE = {"readable": True}

ROWS: dict[str, Row] = {  # backbone, its options beside the recipe's, changes of the plan, and of the training
    "parts": ("parts", {}, {}, PARTS),
    "parts, wide": ("parts", {"width": 256, "channels": 300}, {}, PARTS),
    "readable, wide, long": ("unfolding", {"widths": [96, 192, 256, 256]}, READABLE, LONG),
    "positive, wide, long": ("positive", {"widths": [128, 256, 512]}, {}, LONG | {"matrix_lr": 0.24}),
    "positive, soft gates": ("positive", MIDDLE | {"activation": "silu"}, {}, SHORT),
    "readable": ("unfolding", {}, READABLE, {}),
    "positive, whitened inputs": ("positive", MIDDLE | {"inputs": "whitening"}, {}, SHORT),
    "readable, deep, long": ("unfolding", DEEP | {"residual": [0, 1, 1, 1, 0]}, READABLE, LONG),
    "unfolding, positive": ("unfolding", {"signs": "nonnegative", "stem": "none", "residual": 0}, {}, SHORT),
    "unfolding": ("unfolding", {}, {}, {}),
    "positive, negatives first": ("positive", MIDDLE | {"first": "negative"}, {}, SHORT),
    "positive, means": ("positive", MIDDLE | {"pooling": "mean"}, {}, SHORT),
    "parts, more slots": ("parts", {}, {}, PARTS | {"slots_per_class": 10}),
    "readable, weight 0": ("unfolding", {}, READABLE | {"stabilize": 0.0}, {}),
    "readable, weight 0.3": ("unfolding", {}, READABLE | {"stabilize": 0.3}, {}),
    "readable, weight 3": ("unfolding", {}, READABLE | {"stabilize": 3.0}, {}),
}
CHOICES: dict[str, dict[str, Any]] = {  # changes of the recipe's choice of parts
    "recipe": {},
    "no threshold": {"threshold": 0.0},
    "fewer": {"elsewhere": 0.3, "times": 8, "apart": 0.95},
    "more slots": {"slots_per_class": 10},
}
LATE = 60  # seconds after the end in which a fit may still close


def one(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Fit and measure one row, in this process."""
    backbone, options, changes, train = ROWS[name]
    data = load_data("cifar10")
    if asked.images:
        few = np.sort(np.random.default_rng(0).permutation(len(data.x_train))[: asked.images])
        data = replace(data, x_train=data.x_train[few], y_train=data.y_train[few])
    kind, recipe = plan(data, backbone, options, seed=asked.seed, device=asked.device, **changes)
    if asked.epochs:
        train = train | {"epochs": asked.epochs}
    recipe = replace(recipe, train=replace(recipe.train, **train))
    began, out = time.monotonic(), asked.models / name.replace(", ", "-").replace(" ", "-")

    def stop() -> bool:
        return time.time() > asked.until

    if kind == "parts":
        found = _parts(build_backbone(kind, data, recipe, asked.seed), data, recipe, out, stop)
    else:
        model, _ = fit_and_save(data, kind, recipe, out=out, command=name, stop=stop)
        found = _reached(model, data)
        if changes.get("readable"):
            found["templates"] = measured(load_model(out, device="cpu"), data, asked.seed)
    return found | {"s": round(time.monotonic() - began, 1)}


def _reached(model: Any, data: Any) -> dict[str, Any]:
    answers = evaluate(model.predict(data.x_test), data.y_test)
    return {"accuracy": answers.accuracy, "matched": answers.matched, "slots": model.head.n_slots}


def _parts(net: Any, data: Any, recipe: Recipe, out: Path, stop: Callable[[], bool]) -> dict[str, Any]:
    """What `slots.parts.fit_parts` does, with one training for all choices."""
    config, known, labels = recipe.train, recipe.parts or PartConfig(), np.asarray(data.y_train, np.int64)
    how = {"checkpoint": None, "resume": False, "progress": silent, "log": None, "stop": stop}
    trained = train_on_parts(data.x_train, labels, backbone=net, config=config, bag=known.bag, **how)
    found: dict[str, Any] = {"channels": _reached(trained.model, data), "epochs": len(trained.losses)}
    for label, changes in CHOICES.items():
        if stop():
            break
        parts, chosen_net = replace(known, **changes), copy.deepcopy(net).eval().requires_grad_(False)
        chosen = choose_parts(
            chosen_net,
            lambda ids: trained.model.preprocessing(data.x_train[ids], trained.model.device),
            labels,
            parts,
            among=trained.fitted,
        )
        torch.manual_seed(config.seed)
        model, _ = fit(data.x_train, labels, backbone=chosen_net, config=final_config(config, parts), stop=stop)
        found[label] = _reached(model, data) | {"parts": chosen_net.n_parts, "served": chosen.served}
        model.save(out.with_name(f"{out.name}-{label.replace(', ', '-').replace(' ', '-')}"))
    return found


def sweep(asked: argparse.Namespace) -> dict[str, Any]:
    """All rows by processes; what each gave, or what it said last."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in asked.rows:
        waiting.put(name)
    rows: dict[str, Any] = {}

    def work() -> None:
        while time.time() < asked.until:
            try:
                name = waiting.get_nowait()
            except Empty:
                return
            rows[name] = _in_process(name, asked)
            print(name, json.dumps(rows[name]), flush=True)

    threads = [threading.Thread(target=work) for _ in range(asked.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "command": " ".join(["python", "benchmarks/gpu_sweep.py", *sys.argv[1:]]),
        "commit": asked.commit,
        "versions": provenance.versions(),
        "machine": provenance.hardware(asked.device),
        "rows": {name: rows[name] for name in asked.rows if name in rows},
    }


def _in_process(name: str, asked: argparse.Namespace) -> Any:
    words = [sys.executable, __file__, "--one", name, "--until", str(asked.until), "--device", asked.device]
    words += ["--seed", str(asked.seed), "--models", str(asked.models)]
    words += [
        word for key in ("images", "epochs") if getattr(asked, key) for word in (f"--{key}", str(vars(asked)[key]))
    ]
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    try:
        left = max(1.0, asked.until + LATE - time.time())
        done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "too late"}
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-600:]}


def main() -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8, help="fits at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="after which none begins")
    parser.add_argument("--images", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, help="default: the row's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--commit", default=provenance.commit(), help="commit of the code, where git cannot tell")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one, asked)))
        return
    asked.until = time.time() + asked.seconds
    found = sweep(asked)
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
