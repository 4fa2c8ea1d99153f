"""Whole fits on a GPU: communities, novelty, MNIST's pixels, `explor` on CIFAR-10."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import numpy as np
import torch
from gpu_bench import Bench

import backbones
from protocols.recipes.recipes import find_recipe
from slots import NoveltyDetector, learn_graph
from slots.training.fitting import fit


def graph(bench: Bench) -> Any:
    """Communities without labels: the same on both devices, and twice the same."""
    x, _ = bench.images("mnist", 1500 if bench.tiny else 50_000)
    there = x.to(bench.device)
    ours, first = bench.timed(lambda: learn_graph(there), warm=0, repeats=1)
    again = learn_graph(there)
    start = time.perf_counter()
    reference = learn_graph(x)
    communities = first.placement.communities
    return {
        "s": ours / 1e3,
        "cpu_s": round(time.perf_counter() - start, 2),
        "same_twice": torch.equal(communities, again.placement.communities),
        "same_as_cpu": torch.equal(communities.cpu(), reference.placement.communities),
        "communities": first.n_communities,
    }


def novelty(bench: Bench) -> Any:
    """Fit of a detector."""
    x, _ = bench.images("mnist", 1500 if bench.tiny else 50_000)
    there = x.to(bench.device)
    return {
        "fit_s": bench.timed(lambda: NoveltyDetector(100 if bench.tiny else 500).fit(there), warm=0, repeats=1)[0] / 1e3
    }


def mnist(bench: Bench) -> Any:
    """The whole fit of MNIST pixels."""
    return _fit(bench, "mnist", "pixels", 1500 if bench.tiny else None, 2 if bench.tiny else None)


def recorded(bench: Bench) -> Any:
    """The fit of MNIST pixels with steps as they are, and replayed from a CUDA graph: the losses must be the same."""
    found, before = {}, os.environ.get("SLOTS_GRAPH")
    try:
        for name, word in (("as they are", "0"), ("replayed", "1")):
            os.environ["SLOTS_GRAPH"] = word
            found[name] = mnist(bench)
    finally:
        os.environ.pop("SLOTS_GRAPH", None)
        if before is not None:
            os.environ["SLOTS_GRAPH"] = before
    return {**found, "same_losses": found["as they are"]["losses"] == found["replayed"]["losses"]}


def explor(bench: Bench) -> Any:
    """The whole fit of `explor` on CIFAR-10, with the recipe for GPUs."""
    return _fit(bench, "cifar10", "explor", 300 if bench.tiny else None, 1 if bench.tiny else None)


def _fit(bench: Bench, data: str, backbone: str, n: int | None, epochs: int | None) -> dict[str, Any]:
    """Fit with the recipe, stop in time, answer the test part."""
    recipe = find_recipe(backbone, data, bench.device)
    config = dataclasses.replace(recipe.train, device=bench.device, **({} if epochs is None else {"epochs": epochs}))
    with np.load(bench.data / f"{data}.npz") as archive:
        x, y = archive["x_train"][:n], archive["y_train"][:n].astype(np.int64)
        x_test, y_test = archive["x_test"], archive["y_test"]
    x_test, y_test = (x_test[:200], y_test[:200]) if bench.tiny else (x_test, y_test)
    shape = (3, 32, 32) if x.ndim == 4 else (1, *x.shape[1:])
    phases: dict[str, float] = {}
    last = ["start", time.perf_counter()]

    def progress(step: str, _share: float) -> None:
        name = step.split(" ", maxsplit=1)[0]
        if name != last[0]:
            bench.wait()
            now = time.perf_counter()
            phases[last[0]] = round(phases.get(last[0], 0.0) + now - last[1], 2)
            last[:] = [name, now]

    stop_at = bench.started + bench.deadline - 45
    net = backbones.build(backbone, input_shape=shape, **recipe.backbone)
    start = time.perf_counter()
    model, result = fit(
        x, y, backbone=net, config=config, progress=progress, stop=lambda: time.perf_counter() > stop_at
    )
    bench.wait()
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    answers = model.predict(x_test)
    bench.wait()
    per_s = len(x_test) / (time.perf_counter() - start)
    right = answers.labels == y_test
    if bench.save is not None:
        model.save(bench.save / f"{backbone}-{data}")
    return {
        "fit_s": round(fitted, 2),
        "epochs": result.epochs,
        "interrupted": result.interrupted,
        "losses": [round(loss, 4) for loss in result.losses],
        "phases_s": phases,
        "slots": model.head.n_slots,
        "accuracy": round(100 * float(right.mean()), 2),
        "matched": round(100 * float(answers.matched.mean()), 2),
        "right_when_matched": round(100 * float(right[answers.matched].mean()), 2) if answers.matched.any() else None,
        "predicted_per_s": round(per_s),
        "options": recipe.backbone,
    }
