"""The figures of docs/circuits.md: two networks of digits compared, pictures told apart, kernels written by hand.

    python benchmarks/circuits.py --data-dir FOLDER --output benchmarks/results/circuits.json

Two networks (`cnn` and a linear layer) are trained on MNIST, 400 steps of 64 images by Adam at 1e-3, with the seeds 0
and 1; a third stays untrained. Measured on test images: their accuracy; how alike their layers are; how often the unit
for which a picture was made says most to it, with a control of shuffled weights; the accuracy that is left with the
kernels of a convolution written by six shapes, or without that layer; families of turned copies; and, without any
network, how well planted mixtures of two digits are told from single ones, and the bias of CKA.
Mixtures of the hidden units of the trained networks are told from these units too.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from backbones.building import build
from backbones.explanations.circuits import (
    cka,
    facets,
    families,
    handwritten_layer,
    identification,
    record,
    shuffled,
    unit_cards,
    universality,
)
from backbones.explanations.circuits.examples import auroc
from protocols.data.loading import load_data
from protocols.provenance import commit

LAYERS = {"first convolution": "0", "second convolution": "3", "hidden layer": "7", "classes": "9"}
ALIKE, ASKED, SHUFFLES = 2000, 500, 19  # test images for likeness, and for units; draws of the null


def network(seed: int, x: torch.Tensor | None = None, y: torch.Tensor | None = None) -> nn.Sequential:
    """A network of digits, trained where images are given."""
    torch.manual_seed(seed)
    net = nn.Sequential(*build("cnn", input_shape=(1, 28, 28)).layers, nn.Linear(128, 10))
    if x is not None and y is not None:
        generator = torch.Generator().manual_seed(seed)
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(400):
            rows = torch.randint(len(x), (64,), generator=generator)
            adam.zero_grad()
            functional.cross_entropy(net(x[rows]), y[rows]).backward()
            adam.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of images whose label it gives."""
    return float((net(x).argmax(1) == y).double().mean())


def likenesses(nets: list[nn.Sequential], x: torch.Tensor) -> dict[str, dict[str, list[float]]]:
    """Per layer and measure: the two trained ones, their p-value, and the first beside the untrained one."""
    found = {}
    for name, layer in LAYERS.items():
        a, b, untrained = (record(net, layer, x).sampled for net in nets)
        compared = universality(a, b, control=untrained, permutations=SHUFFLES)
        found[name] = {it.measure: [it.found.statistic, it.found.p_value, it.control or 0.0] for it in compared}
    return found


def told_apart(net: nn.Sequential, x: torch.Tensor) -> dict[str, float]:
    """Share of pictures to which the unit that they were made for says most."""
    found = {}
    for name, layer in LAYERS.items():
        seen = record(net, layer, x)
        found[name] = identification(net, seen, range(min(32, seen.n_units)), x).top1
    return found


def by_hand(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> dict[str, dict[str, float]]:
    """Accuracy with a convolution's kernels written by six shapes, and with none."""
    found = {}
    for name in ("first convolution", "second convolution"):
        without = copy.deepcopy(net)
        with torch.no_grad():
            without[int(LAYERS[name])].weight.zero_()
        written = accuracy(handwritten_layer(net, LAYERS[name]), x, y)
        whole, none = accuracy(net, x, y), accuracy(without, x, y)
        found[name] = {"whole": whole, "written": written, "none": none, "kept": (written - none) / (whole - none)}
    return found


def mixtures(*, balanced: bool) -> float:
    """AUROC by which sums of two units are told from single ones; a unit is the nearness to one digit's mean."""
    digits = load_digits()
    x = torch.from_numpy(digits.data).float()
    x = x - x.mean(0)
    means = torch.stack([x[digits.target == label].mean(0) for label in range(10)])
    said = (functional.normalize(x) @ functional.normalize(means).T).relu()
    said = said / said.quantile(0.98, 0) if balanced else said
    mixed = [facets(said[:, i] + said[:, j], x).found.effect for i, j in itertools.combinations(range(10), 2)]
    return auroc(np.array(mixed), np.array([facets(said[:, it], x).found.effect for it in range(10)]))


def mixtures_of_units(net: nn.Sequential, x: torch.Tensor) -> float:
    """The same of hidden units of a trained network: each of 20, and 40 sums of two, told apart by their images."""
    said = record(net, LAYERS["hidden layer"], x).peaks.relu()
    said = said[:, said.quantile(0.98, 0) > 0]
    said = said / said.quantile(0.98, 0)
    draws = np.random.default_rng(0)
    pairs = [draws.choice(said.shape[1], 2, replace=False).tolist() for _ in range(40)]
    mixed = [facets(said[:, i] + said[:, j], x).found.effect for i, j in pairs]
    return auroc(np.array(mixed), np.array([facets(said[:, it], x).found.effect for it in range(20)]))


def bias_of_cka(*, unbiased: bool) -> float:
    """Mean over 20 draws of CKA of independent normal data: 128 inputs, 32 units."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(20, 2, 128, 32, generator=generator)
    return float(np.mean([cka(a, b, unbiased=unbiased) for a, b in draws]))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    made_at = commit()
    data = load_data("mnist", data_dir=asked.data_dir)
    train, test = (
        torch.from_numpy(np.asarray(it)).float().reshape(-1, 1, 28, 28) / 255 for it in (data.x_train, data.x_test)
    )
    y_train, y_test = torch.from_numpy(data.y_train), torch.from_numpy(data.y_test)
    nets = [network(0, train, y_train), network(1, train, y_train), network(2)]
    some = test[:ASKED]
    result: dict[str, object] = {
        "what": "features as claims: networks of MNIST compared, and their units tested",
        "command": " ".join(
            ["python", "benchmarks/circuits.py", *(["--output", str(asked.output)] if asked.output else [])]
        ),
        "commit": made_at,
        "machine": {"system": platform.system(), "cores": os.cpu_count(), "threads": 1},
        "accuracy": [accuracy(it, test, y_test) for it in nets],
        "likeness": likenesses(nets, test[:ALIKE]),
        "told_apart": told_apart(nets[0], some),
        "told_apart_shuffled": told_apart(shuffled(nets[0]), some),
        "by_hand": by_hand(nets[0], test, y_test),
        "families_of_first_convolution": [len(families(it, "0", some, group="rot4").families) for it in nets[:2]],
        "mixtures": {"balanced": mixtures(balanced=True), "as they are": mixtures(balanced=False)},
        "mixtures_of_hidden_units": [mixtures_of_units(it, test[:ALIKE]) for it in nets[:2]],
        "cka_of_independent": {"biased": bias_of_cka(unbiased=False), "unbiased": bias_of_cka(unbiased=True)},
    }
    started = time.process_time()
    unit_cards(nets[0], "3", list(range(32)), some, permutations=199)
    result["seconds_of_32_cards"] = time.process_time() - started
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
