r"""Nested unfolding on MNIST: what the gate and the signs of the weights do to the filters that units fold into.

    SLOTS_DATA_DIR=... python benchmarks/unfolding.py --out benchmarks/results/unfolding.json \
        --figure docs/unfolding.png

Two levels with windows that share nothing: 24 parts of 4x4 pixels, 40 units over the whole picture, and the slot head
on the units' values. Same images, epochs and seed for each net. The template of the winning slot is drawn for test
digits and for Gaussian noise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import backbones
from protocols.data.loading import load_data
from protocols.pages.pictures import diverging
from protocols.provenance import commit, processor, versions
from slots.training.config import TrainConfig
from slots.training.fitting import fit

NETS = {
    "max, nonnegative": {"gate": "max", "signs": "nonnegative"},
    "max, free": {"gate": "max"},
    "relu, free": {"gate": "relu"},
    "linear, nonnegative": {"gate": "relu", "signs": "nonnegative"},  # nothing is negative, so a ReLU does nothing
}
LEVELS = {"widths": [24, 40], "windows": [4, 7]}
ZOOM, GAP = 2, 3


def train(options, data, count, config):
    """A model with a net of its own."""
    torch.manual_seed(config.seed)
    net = backbones.build("unfolding", input_shape=(1, 28, 28), **LEVELS, **options)
    start = time.process_time()
    model, _ = fit(data.x_train[:count], data.y_train[:count], backbone=net, config=config)
    return model, time.process_time() - start


def templates(model, x):
    """The filter of each input's answering slot, and how exactly it explains the slot's score."""
    with torch.no_grad():
        features = model.backbone(x)
        winners = (functional.normalize(features, dim=1) @ model.head.weights.T).argmax(1)
    directions = model.head.weights.detach()[winners]
    pictures = model.backbone.template(x, directions)
    value = (features * directions).sum(1)
    explained = (pictures * x).flatten(1).sum(1)
    return pictures, float((value - explained).abs().max() / value.abs().max())


def measure(model, data, n_test):
    """Accuracy, and what the filters look like."""
    x = model.preprocessing(data.x_test[:n_test], "cpu")
    pictures, gap = templates(model, x)
    flat, inputs = pictures.flatten(1), x.flatten(1)
    cosine = functional.cosine_similarity(flat, inputs, dim=1)
    against = flat.clamp_max(0).abs().sum(1) / flat.abs().sum(1)
    ink = inputs > 0.5
    on_ink = (flat.abs() * ink).sum(1) / flat.abs().sum(1)
    _, noise_gap = templates(model, torch.randn(n_test, 1, 28, 28))
    labels = model.predict(data.x_test[:n_test]).labels
    return {
        "test_accuracy": float((np.asarray(labels) == data.y_test[:n_test]).mean()),
        "slots": int(model.head.n_slots),
        "cosine_of_filter_and_digit": float(cosine.mean()),
        "negative_share_of_filter": float(against.mean()),
        "share_of_filter_on_ink": float(on_ink.mean()),
        "share_of_pixels_that_are_ink": float(ink.float().mean()),
        "relative_error_of_explanation_on_digits": gap,
        "relative_error_of_explanation_on_noise": noise_gap,
    }


def draw(models, data, path):
    """Rows: inputs, then the templates of each model. Columns: a digit of each class, and noise."""
    ids = [int(np.flatnonzero(data.y_test == label)[1]) for label in range(10)]
    digits = models[0].preprocessing(data.x_test[ids], "cpu")
    torch.manual_seed(1)
    x = torch.cat([digits, torch.randn(3, 1, 28, 28)])
    rows = [np.stack([diverging(one[0].numpy()) for one in x])]
    for model in models:
        pictures, _ = templates(model, x)
        rows.append(np.stack([diverging(one[0].numpy()) for one in pictures]))
    side = 28 * ZOOM
    sheet = np.full((len(rows) * (side + GAP) + GAP, len(x) * (side + GAP) + GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            big = picture.repeat(ZOOM, 0).repeat(ZOOM, 1)
            sheet[GAP + i * (side + GAP) :, GAP + j * (side + GAP) :][:side, :side] = big
    Image.fromarray(sheet).quantize(255).save(path, optimize=True)


def main():
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("mnist")
    config = TrainConfig(
        epochs=options.epochs, batch_size=250, slots_per_class=10, scale=40.0, beta=20.0, augment="shift2",
        backbone_lr=1e-2, weight_decay=0.0, seed=options.seed,
    )  # fmt: skip
    rows, models = {}, []
    for name, choice in NETS.items():
        model, seconds = train(choice, data, options.train, config)
        rows[name] = {**measure(model, data, options.test), "processor_seconds": round(seconds, 1)}
        models.append(model)
        print(name, json.dumps(rows[name]), flush=True)
    if options.figure:
        draw(models, data, options.figure)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "seed": options.seed,
        "epochs": options.epochs,
        "train": options.train,
        "test": options.test,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1},
        "versions": versions(),
        "commit": commit(),
        "nets": rows,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
