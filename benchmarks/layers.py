"""What each first layer and each normalisation of the input does to accuracy; and the two-class nets of early_nets.py.

    SLOTS_DATA_DIR=... python benchmarks/layers.py --out benchmarks/results/layers.json
    SLOTS_DATA_DIR=... python benchmarks/layers.py --signs --epochs 2 --seeds 0 1 2 --out benchmarks/results/signs.json
    SLOTS_DATA_DIR=... python benchmarks/layers.py --early-nets --out benchmarks/results/early_nets.json

The layers stand in the same small `positive` net with a linear layer above: 10,000 training images, the same
few epochs for each, one thread. Only the first layer (or the normalisation) differs; all normalisations begin with a
positive scale (``signs="plus"``) but where signs are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from early_nets import accuracy, measure, scaled, train
from torch import nn

import backbones
from backbones.layers.l2_conv import L2Conv2d
from backbones.nets.first_layers import FIRSTS, INPUTS
from protocols.data.loading import load_data
from protocols.provenance import commit, processor

WIDTHS = [16, 48]
PEAK = 1e-2
SLOW = ("perspective", "projected")  # these come last
CHOICES = [
    *({"first": kind} for kind in FIRSTS if kind not in SLOW),
    *({"inputs": kind} for kind in INPUTS[1:]),
    *({"first": kind} for kind in SLOW),
]

OF_SIGNS = [{"first": first, "signs": signs} for first in ("convolution", "whitening") for signs in ("plus", "both")]


def net(shape, choice):
    """`positive` with one thing changed, under a linear layer: it learns sooner than slots, and the epochs are few."""
    backbone = backbones.build("positive", input_shape=shape, widths=WIDTHS, **{"signs": "plus", **choice})
    return nn.Sequential(backbone, nn.Linear(backbone.feature_dim, 10))


def subset(images, labels, count, seed):
    """So many images, drawn at random."""
    ids = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    return scaled(images[ids]), torch.from_numpy(labels[ids]).long()


def ablate(data, choices, *, count, epochs, seeds, report, rows):
    """One row a choice: test accuracies over the seeds; ``rows`` are there already."""
    rows = list(rows)
    x_test, y_test = subset(data.x_test, data.y_test, len(data.x_test), 0)
    for choice in choices:
        if any(row["choice"] == choice for row in rows):
            continue
        found, seconds = [], []
        for seed in seeds:
            x, y = subset(data.x_train, data.y_train, count, seed)
            torch.manual_seed(seed)
            model = net(tuple(x.shape[1:]), choice)
            model[0].prepare_(x[:2000])
            quick = [layer.weight for layer in model.modules() if isinstance(layer, L2Conv2d)]
            flip = data.name == "cifar10"
            seconds.append(train(model, x, y, epochs=epochs, seed=seed, peak=PEAK, flip=flip, quick=quick))
            found.append(accuracy(model, x_test, y_test))
        rows.append(
            {
                "choice": choice,
                "test_accuracy": found,
                "parameters": sum(p.numel() for p in model.parameters()),
                "cpu_s": [round(one, 1) for one in seconds],
            }
        )
        report(rows, f"{choice!s:30} {[f'{100 * one:.2f}' for one in found]} %  {seconds[-1]:.0f} s")
    return rows


def main():
    """Measure, print, and write JSON after each row; the same command again goes on where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--early-nets", action="store_true")
    parser.add_argument(
        "--signs", action="store_true", help="signs of the normalisations at the start, in place of layers"
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("cifar10" if args.early_nets else args.data, data_dir=args.data_dir)
    epochs = args.epochs or (10 if args.early_nets else 4)
    document = {
        "data": data.name,
        "data_digest": data.digest,
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *_without_paths(sys.argv[1:])]),
        "seeds": args.seeds,
        "epochs": epochs,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1},
        "commit": commit(),
    }

    def report(rows, line):
        print(line, flush=True)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(document | {"rows": rows}, indent=1) + "\n")

    if args.early_nets:
        measure(data, epochs=epochs, seeds=args.seeds, report=report)
    else:
        document |= {"train": args.train, "widths": WIDTHS, "peak_rate": PEAK}
        rows = kept(args.out, document)
        choices = OF_SIGNS if args.signs else CHOICES
        ablate(data, choices, count=args.train, epochs=epochs, seeds=args.seeds, report=report, rows=rows)


def kept(path, document):
    """Rows of an interrupted run of the same measurement."""
    if path is None or not path.is_file():
        return []
    before = json.loads(path.read_text())
    same = ("data_digest", "seeds", "epochs", "train", "widths", "peak_rate", "machine")
    return before["rows"] if all(before.get(key) == document[key] for key in same) else []


def _without_paths(arguments):
    """The command without where the data lies and where the result goes."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in {"--data-dir", "--out"}:
            skip = not skip
            continue
        kept.append(argument)
    return kept


if __name__ == "__main__":
    main()
