"""Whether what users call gives on a GPU what it gives on the CPU, and whether the commands run there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_bench import Bench, or_error
from sklearn.datasets import load_digits

import backbones
import slots
from backbones.explanations import stabilize
from slots.estimators import SlotClassifier, SlotClusterer, SlotOutlierDetector

ROOT = Path(__file__).parent.parent
NETS = ("cnn", "explor", "unfolding", "positive", "disjunction", "directional", "gumbel", "lipschitz", "parts")
PROTOCOLS = ("slot-update", "continual", "unsupervised", "ood", "label-errors", "adversarial", "robustness")
AT_ONCE = 8  # commands
LIMIT = 120  # seconds for one of them
DIGITS = load_digits()
ROWS, LABELS = torch.from_numpy(DIGITS.data.astype(np.float32) / 16), torch.from_numpy(DIGITS.target)
IMAGES = (DIGITS.images * 255 / 16).astype(np.uint8)
N = 1000  # to learn from; the next 400 are asked


def agreement(bench: Bench) -> Any:
    """For each call: how far what it gives on the device is from what it gives on the CPU, and in which share."""
    there = torch.device(bench.device)
    calls = LIBRARY | {f"net {name}": _net(name) for name in NETS}
    return {name: or_error(lambda call=call: _compared(call, there)) for name, call in calls.items()}


def commands(bench: Bench) -> Any:
    """What each command line printed at last if it failed; nothing of those that ran."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        lines = _command_lines(Path(folder), bench.device)
        lines = dict(list(lines.items())[:2]) if bench.tiny else lines
        done = pool.map(_ran, lines.values())
        return {"tried": len(lines), "failed": {name: said for name, said in zip(lines, done, strict=True) if said}}


def _compared(call: Callable[[torch.device], list[Any]], there: torch.device) -> list[str]:
    """One word for each thing that a call gives."""
    found = []
    for here, other in zip(call(torch.device("cpu")), call(there), strict=True):
        a, b = (torch.as_tensor(it).detach().cpu().double() for it in (here, other))
        if a.shape != b.shape:
            found.append(f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
        else:
            off = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
            found.append("equal" if not off.any() else f"off by {off.max():.1e} in {(off > 0).double().mean():.2%}")
    return found


def _fitted(device: torch.device) -> list[Any]:
    config = slots.TrainConfig(epochs=5, device=str(device))
    model, _ = slots.fit(ROWS[:N].numpy(), LABELS[:N].numpy(), config=config)
    answers = model.predict(ROWS[N:].numpy())
    return [answers.labels, answers.matched]


def _certified(device: torch.device) -> list[Any]:
    robust = slots.RobustConfig("l2", 1.0)
    config = slots.TrainConfig(epochs=6, slots_per_class=10, robust=robust, device=str(device))
    net = backbones.build("pixels", input_shape=(1, 8, 8))
    model, _ = slots.fit(IMAGES[:N], DIGITS.target[:N], backbone=net, config=config)
    return [it for it in vars(slots.predict_certified(model, IMAGES[N : N + 200], 0.5)).values() if np.ndim(it)]


def _estimated(kind: Any, **options: Any) -> Callable[[torch.device], list[Any]]:
    def call(device: torch.device) -> list[Any]:
        estimator = kind(random_state=0, **options)
        return [estimator.fit(ROWS[:N].to(device), LABELS[:N].to(device)).predict(ROWS[N:].to(device))]

    return call


def _net(name: str) -> Callable[[torch.device], list[Any]]:
    """Features, templates and the loss on templates of a fresh net."""

    def call(device: torch.device) -> list[Any]:
        torch.manual_seed(0)
        net, images = backbones.build(name, input_shape=(1, 8, 8)), ROWS[:64].reshape(-1, 1, 8, 8)
        net(images)  # statistics of a batch, by the CPU both times
        net = net.to(device)
        loss = stabilize(net, images[:8].to(device)).loss
        net.eval()
        ones = torch.ones(net.feature_dim, device=device)
        return [net(images.to(device)), net.template(images[:8].to(device), ones), loss]

    return call


LIBRARY: dict[str, Callable[[torch.device], list[Any]]] = {
    "class_cover": lambda device: [slots.class_cover(ROWS[:N].to(device), LABELS[:N].to(device)).picked],
    "fit": _fitted,
    "certified": _certified,
    "learn_graph": lambda device: [slots.learn_graph(ROWS[:N].to(device)).placement.communities],
    "NoveltyDetector": lambda device: [
        slots.NoveltyDetector(100).fit(ROWS[:N].to(device), LABELS[:N].to(device)).predict(ROWS[N:].to(device))
    ],
    "SlotClassifier": _estimated(SlotClassifier),
    "SlotClusterer": _estimated(SlotClusterer, n_clusters=10),
    "SlotOutlierDetector": _estimated(SlotOutlierDetector),
}


def _command_lines(folder: Path, device: str) -> dict[str, list[list[str]]]:
    """What is run one after the other, by name."""
    of = ["--device", device, "-q"]

    def life(name: str, *more: str) -> list[list[str]]:
        model = str(folder / name)
        return [
            ["fit", "--data", "digits", *more, "--epochs", "3", "--out", model, *of],
            ["predict", model, "--data", "digits", *of],
            ["ood", model, "--data", "digits", *of],
            ["explain", model, "--images", "2", *of],
        ]

    lines = {name: life(name, "--backbone", name) for name in NETS}
    lines["readable"] = life("readable", "--readable")
    lines["reconstruction"] = life("reconstruction", "--backbone", "unfolding", "--reconstruction", "1", "--detach")
    model = str(folder / "robust")
    lines["robust"] = [
        ["fit", "--data", "digits", "--robust", "l2:1", "--epochs", "3", "--out", model, *of],
        ["certify", model, "--data", "digits", "--radius", "0.5", "-q"],
    ]
    model = str(folder / "updated")
    lines["update"] = [
        ["fit", "--data", "digits", "--classes", "0-7", "--slots-per-class", "0", "--out", model, *of],
        ["update", model, "--data", "digits", "--budget", "20", *of],
        ["clean", model, "--data", "digits", *of],
    ]
    for name in PROTOCOLS:
        out = str(folder / f"run-{name}")
        lines[f"run {name}"] = [["run", name, "--data", "digits", "--seeds", "1", "--peers", "none", "--out", out, *of]]
    return lines


def _ran(steps: list[list[str]]) -> str:
    """What the first step that failed said last; nothing if all ran."""
    for words in steps:
        try:
            done = subprocess.run(
                [sys.executable, str(ROOT / "cli.py"), *words],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{' '.join(words)}: more than {LIMIT} s"
        if done.returncode:
            return f"{' '.join(words)}: {done.stderr[-300:]}"
    return ""
