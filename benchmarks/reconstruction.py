"""Does a linear head overfit less on interpretable units? MNIST, few labels, the head detached from the units.

One hidden layer net without biases learns its units in one of several ways; then a linear head learns from a few labels
on the units' values, and cannot change them. Interpretability is the mean correlation of the winning unit's gradient
with a test image. Overfitting is the head's accuracy on its training images minus that on test images. Usage::

    python benchmarks/reconstruction.py --out benchmarks/results/reconstruction.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backbones.explanations.reconstruction import reconstruct
from protocols.data.loading import load_data
from protocols.provenance import commit

UNITS, HIDDEN, BATCH = 64, 128, 100
KINDS = {  # weights of cross-entropy (on true or random labels) and reconstruction
    "random labels": (1.0, 0.0, True),
    "untrained": (0.0, 0.0, False),
    "labels": (1.0, 0.0, False),
    "labels + 0.3 reconstruction": (1.0, 0.3, False),
    "labels + 3 reconstruction": (1.0, 3.0, False),
    "reconstruction": (0.0, 1.0, False),
    "reconstruction, background ignored": (0.0, 1.0, False),
}


def network(positive):
    """Two bias-free layers of units."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, UNITS, bias=False), nn.ReLU()
    )
    if positive:
        for layer in (net[1], net[3]):
            nn.init.uniform_(layer.weight, 0, 2 / layer.in_features)
    return net


def learn_units(kind, x, y, epochs, seed, positive):
    """Train the units; returns them."""
    by_label, by_picture, shuffled = KINDS[kind]
    torch.manual_seed(seed)
    net, head = network(positive), nn.Linear(UNITS, 10)
    targets = y[torch.randperm(len(y))] if shuffled else y
    if by_label == by_picture == 0:
        return net
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = torch.zeros(())
            if by_picture:
                found = reconstruct(net, x[batch], balanced=True, ignore_background="ignored" in kind)
                features, loss = found.features, by_picture * found.loss
            else:
                features = net(x[batch])
            if by_label:
                loss = loss + by_label * functional.cross_entropy(head(features), targets[batch])
            loss.backward()
            optimizer.step()
            if positive:
                with torch.no_grad():
                    for layer in (net[1], net[3]):
                        layer.weight.clamp_min_(0)
    return net


def learn_head(features, y, seed):
    """A linear head on given features, standardised, trained to the end."""
    torch.manual_seed(seed)
    head = nn.Linear(features.shape[1], 10)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        functional.cross_entropy(head(features), y).backward()
        optimizer.step()
    return head


def measure(net, few, test, seed):
    """Correlation, and accuracies of a detached head."""
    (x, y), (x_test, y_test) = few, test
    parts = [reconstruct(net, part, balanced=True).correlation for part in x_test.split(500)]
    with torch.no_grad():
        values, test_values = net(x), net(x_test)
        rivals = (test_values - test_values.mean(0)) / test_values.std(0).clamp_min(1e-6)
        winners = rivals.argmax(1)
        mean, deviation = values.mean(0), values.std(0).clamp_min(1e-6)
    head = learn_head((values - mean) / deviation, y, seed)
    with torch.no_grad():
        train = float((head((values - mean) / deviation).argmax(1) == y).float().mean())
        tested = float((head((test_values - mean) / deviation).argmax(1) == y_test).float().mean())
    return {
        "correlation": float(torch.cat(parts).mean()),
        "units_that_win": len(winners.unique()),
        "head_train": train,
        "head_test": tested,
        "overfitting": train - tested,
    }


def main():
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--examples", type=int, default=6000, help="images from which the units learn")
    parser.add_argument("--few", type=int, default=500, help="labelled images from which the head learns")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(args.data, data_dir=args.data_dir)
    scaled = lambda x: torch.from_numpy(x[..., 0] if x.ndim == 4 else x).float()[:, None] / 255  # noqa: E731
    x, y = scaled(data.x_train[: args.examples + args.few]), torch.from_numpy(data.y_train[: args.examples + args.few])
    test = scaled(data.x_test[:5000]), torch.from_numpy(data.y_test[:5000])
    rows = []
    for positive in (False, True):
        for kind in KINDS:
            for seed in args.seeds:
                started = time.process_time()
                net = learn_units(kind, x[: args.examples], y[: args.examples], args.epochs, seed, positive)
                found = measure(net, (x[args.examples :], y[args.examples :]), test, seed)
                seconds = round(time.process_time() - started, 1)
                rows.append({"units": kind, "positive": positive, "seed": seed, **found, "cpu_s": seconds})
                print(rows[-1], flush=True)
    together = {}
    for positive in (False, True):
        chosen = [row for row in rows if row["positive"] == positive]
        pairs = np.array([[row["correlation"], row["overfitting"]] for row in chosen])
        together["positive" if positive else "signed"] = float(np.corrcoef(pairs.T)[0, 1])
    print(together)
    document = {
        "data": data.name,
        "data_digest": data.digest,
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": args.seeds,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": 1, "device": "cpu"},
        "commit": commit(),
        "correlation_of_interpretability_and_overfitting": together,
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
