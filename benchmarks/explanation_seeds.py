"""DiffROAR and max-sensitivity at a size that decides: three networks of each kind, captum's methods beside ours.

    python benchmarks/explanation_seeds.py --cache nets --workers 2 --output benchmarks/results/explanation_seeds.json

Three `explor` and three ordinary networks of one size are trained on 16,000 images of CIFAR-10. Each method explains
what they find in 5,000 other training images and in 5,000 test images. A small network then learns from the pixels that
rank highest, another one from those that rank lowest; DiffROAR is the difference of their accuracies on the test images
in points, the mean of 10 % and 50 % of the pixels kept (Shah et al. 2021, "Do input gradients highlight discriminative
features?"). Random ranks and the strength of edges say what no network is needed for. Max-sensitivity is that of 1,000
test images with ten neighbours each (Yeh et al. 2019).

The mean over networks has Student's 95 % interval; so has the difference to the plain gradient, network by network,
with the same small networks' beginnings. ``--weights FILE`` adds the pretrained ResNet-56: one network, and three
beginnings of the small networks. What is done is written after each row and not done again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import explanation_nets
import numpy as np
import torch
from explanations import METHODS, RADIUS, classes, diffroar, in_parts, normalised, peers
from scipy import stats

from backbones.explanations.metrics import max_sensitivity
from backbones.nets.cifar_resnet import CifarResNet
from protocols.data.loading import load_data

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.recorded import keep, made_with

SEEDS = (0, 1, 2)
TRAINED = 16_000
"""Images that the networks learn from; the small networks of DiffROAR learn from the next ones."""
EXPLOR = ("plain gradient", "held gradient", "SoftPullback", "captum IntegratedGradients")
ORDINARY = ("plain gradient", "SoftPullback", "captum IntegratedGradients", "captum GuidedBackprop")
RESNET = ("plain gradient", "SoftPullback")
WITHOUT = ("random ranks", "edges")
"""Ranks that ask no network."""


@functools.cache
def pictures(net, sizes, data_dir):
    """Images and labels: those the networks learn, those of the small networks, and the test images."""
    data, (learned, tested) = load_data("cifar10", data_dir=data_dir), sizes
    scaled = functools.partial(normalised, net=net)
    own = slice(TRAINED, TRAINED + learned)
    x = scaled(np.concatenate([data.x_train[own], data.x_test[:tested]]))
    y = torch.from_numpy(np.concatenate([data.y_train[own], data.y_test[:tested]]))
    return (scaled(data.x_train[:TRAINED]), torch.from_numpy(data.y_train[:TRAINED])), (x, y)


def edges(x):
    """Strength of the differences to neighbours (image, channel, height, width)."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[:, :, 1:-1], right[:, :, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2], x[:, :, :, 2:] - x[:, :, :, :-2]
    return (down.square() + right.square()).sqrt()


def network(name, seed, args):
    """A trained network."""
    if name == "ResNet-56":
        model = CifarResNet(56)
        stored = torch.load(args.weights, map_location="cpu", weights_only=True)
        stored = stored.get("state_dict", stored)
        model.load_state_dict({key.removeprefix("module."): value for key, value in stored.items()})
        return model.eval()
    train, _ = pictures("small", args.sizes, args.data_dir)
    return explanation_nets.trained(name, *train, epochs=args.epochs, cache=args.cache, seed=seed)[0]


def row(name, method, seed, args):
    """Numbers of one method on one network."""
    torch.set_num_threads(1)
    net = "resnet56" if name == "ResNet-56" else "small"
    _, (x, y) = pictures(net, args.sizes, args.data_dir)
    started = time.process_time()
    if method in WITHOUT:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
        given = noise if method == "random ranks" else edges(x)
        return {"diffroar": diffroar(lambda _x: given, (x, y), args.sizes, seed)}
    model = network(name, seed, args)
    explain = (METHODS | peers(model))[method]
    found = classes(model, x)
    tested = slice(args.sizes[0], args.sizes[0] + args.images)
    sensitivity = max_sensitivity(
        lambda some: in_parts(lambda part, which: explain(model, part, which), some, found[tested]),
        x[tested], radius=RADIUS, samples=args.samples, seed=seed,
    ).double()  # fmt: skip
    explained = time.process_time()
    saliency = in_parts(lambda part, which: explain(model, part, which), x, found)
    ms = 1e3 * (time.process_time() - explained) / len(x)
    return {
        "accuracy": float((found == y)[args.sizes[0] :].float().mean()),
        "max_sensitivity": {"mean": float(sensitivity.mean()), "of_images": spread(sensitivity)},
        "ms_per_image": round(ms, 2),
        "diffroar": diffroar(lambda _x: saliency, (x, y), args.sizes, seed),
        "cpu_s": round(time.process_time() - started),
    }


def spread(values):
    """Twice the standard error over images."""
    return float(2 * values.std() / math.sqrt(len(values)))


def over_seeds(values):
    """Mean of some networks, and half of Student's 95 % interval."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return {"mean": float(values.mean())}
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return {"mean": round(float(values.mean()), 4), "pm": round(float(half), 4)}


def summary(rows):
    """Means, intervals, and differences to the plain gradient of the same network."""
    found = {}
    for key in dict.fromkeys(key.rsplit("/", 1)[0] for key in rows):
        name, method = key.split("/")
        mine = {seed: rows[f"{key}/{seed}"] for seed in SEEDS if f"{key}/{seed}" in rows}
        plain = {seed: rows.get(f"{name}/plain gradient/{seed}") for seed in mine}
        entry = found[key] = {"networks": len(mine)}
        for number, of in (("DiffROAR", points), ("max_sensitivity", lambda it: it["max_sensitivity"]["mean"])):
            if method in WITHOUT and number != "DiffROAR":
                continue
            entry[number] = over_seeds([of(it) for it in mine.values()])
            pairs = [of(mine[seed]) - of(plain[seed]) for seed in mine if plain[seed] is not None]
            if method != "plain gradient" and pairs:
                entry[f"{number} more than the plain gradient"] = over_seeds(pairs)
    return found


def points(it):
    """DiffROAR in points."""
    return 100 * it["diffroar"]["DiffROAR"]


def wanted(args):
    """Names, methods and seeds of all rows: one round of seeds after the other, what takes longest at the end."""
    nets = [("none", WITHOUT), ("ordinary", ORDINARY), ("explor", EXPLOR)]
    nets += [("ResNet-56", RESNET)] if args.weights else []
    rows = [(name, method, seed) for seed in SEEDS for name, methods in nets for method in methods]
    return sorted(rows, key=lambda it: (it[0] == "ResNet-56", "Integrated" in it[1]))


def main():
    """Train, explain, retrain, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="State dict of the ResNet-56.")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="Folder that keeps the networks.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs=2, default=(5000, 5000), help="Of DiffROAR: learned, tested.")
    parser.add_argument("--images", type=int, default=1000, help="Of max-sensitivity.")
    parser.add_argument("--samples", type=int, default=10, help="Neighbours of each.")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    args.sizes = tuple(args.sizes)
    document = made_with(__file__, SEEDS[0], ("torch", "numpy", "captum"))
    command = " ".join("FOLDER" if "/" in it else it for it in sys.argv[1:])  # where it lay tells nobody anything
    document |= {"command": f"python benchmarks/{Path(__file__).name} {command}"}
    document |= {"seeds": SEEDS, "summary": {}, "rows": {}}
    if args.output and args.output.is_file():
        document["rows"] = json.loads(args.output.read_text())["rows"]
    torch.set_num_threads(1)
    for name in ("ordinary", "explor"):
        for seed in SEEDS:
            network(name, seed, args)
    todo = [it for it in wanted(args) if "/".join(map(str, it)) not in document["rows"]]
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        asked = {pool.submit(row, *it, args): "/".join(map(str, it)) for it in todo}
        for done in as_completed(asked):
            document["rows"][asked[done]] = done.result()
            document["summary"] = summary(document["rows"])
            keep(document, args.output)
            print(asked[done], json.dumps(done.result()), flush=True)


if __name__ == "__main__":
    main()
