"""Plain gradients, pullbacks and the gradients of `explor`, judged by six numbers and by eye, on CIFAR-10.

Networks: the pretrained ResNet-56 (``--weights FILE``), and two small ones of the same size that are trained here in
the same way, `explor` and an ordinary CNN. Usage::

    python benchmarks/explanations.py --net small --cache FOLDER --out benchmarks/results/explanations-small.json
    python benchmarks/explanations.py --net resnet56 --weights FILE --out benchmarks/results/explanations-resnet56.json

Every number but the alignment (the label's) is about the class that the network found. Inputs have mean 0 and
deviation 1, about; that is the unit of noise. Intervals are twice the standard error over the images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import explanation_figures
import explanation_nets
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backbones.explanations.ascent import ascend, gradient
from backbones.explanations.metrics import (
    alignment,
    deletion_and_insertion,
    infidelity,
    max_sensitivity,
    perturb,
    stability,
)
from backbones.nets.cifar_resnet import CifarResNet
from protocols.data.loading import load_data
from protocols.provenance import commit

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NOISE = 0.2  # deviation, for infidelity
RADIUS = 0.1  # for sensitivity
LEVELS = (0.1, 0.5)  # shares of pixels kept, for DiffROAR


def one(kind):
    """One gradient."""
    return lambda model, x, found: gradient(model, x, found, kind=kind)


def climb(kind):
    """Five steps."""
    return lambda model, x, found: ascend(model, x, found, kind=kind).attribution


METHODS = {
    "plain gradient": one("plain"),
    "held gradient": one("held"),
    "SoftPullback": one("soft"),
    "pullback ascent": climb("soft"),
}


def peers(model):
    """What users of captum would take; GuidedBackprop wants ReLUs that are modules."""
    from captum.attr import GuidedBackprop, IntegratedGradients

    integrated, guided = IntegratedGradients(model, multiply_by_inputs=False), GuidedBackprop(model)
    return {
        "captum IntegratedGradients": lambda _model, x, found: integrated.attribute(x, target=found, n_steps=8).float(),
        "captum GuidedBackprop": lambda _model, x, found: guided.attribute(x, target=found),
    }


def in_parts(explain, x, found, size=100):
    """Attributions of many inputs."""
    return torch.cat(
        [explain(part, which).detach() for part, which in zip(x.split(size), found.split(size), strict=True)]
    )


@torch.no_grad()
def classes(model, x):
    """What the network finds."""
    return torch.cat([model(part).argmax(1) for part in x.split(250)])


def interval(values):
    """Mean and twice its standard error."""
    values = values.double()
    return {"mean": float(values.mean()), "pm": float(2 * values.std() / math.sqrt(len(values)))}


def diffroar(explain, data, sizes, seed):
    """Accuracy of a small classifier on images that keep the top pixels, minus on those that keep the bottom ones."""
    (x, y), (n_train, n_test) = data, sizes
    saliency = explain(x).abs().sum(1).flatten(1)
    rank = saliency.argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(len(x), 1, 32, 32)
    rows = {}
    for level in LEVELS:
        keep = round(1024 * level)
        for name, mask in (("top", rank < keep), ("bottom", rank >= 1024 - keep)):
            rows[f"{name} {level}"] = retrain(x * mask, y, n_train, n_test, seed)
        rows[f"difference {level}"] = rows[f"top {level}"] - rows[f"bottom {level}"]
    rows["DiffROAR"] = sum(rows[f"difference {level}"] for level in LEVELS) / len(LEVELS)
    return rows


def retrain(x, y, n_train, n_test, seed):
    """Test accuracy of a two-layer convolutional net trained on these images."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    epochs = 8
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(n_train / 100))
    for _ in range(epochs):
        for batch in torch.randperm(n_train).split(100):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        return float((net(x[n_train : n_train + n_test]).argmax(1) == y[n_train : n_train + n_test]).float().mean())


def judge(model, explain, shared, args):
    """All numbers of one method on one network."""
    x, y, found = shared["x"], shared["y"], shared["found"]
    started = time.process_time()
    attribution = in_parts(lambda part, which: explain(model, part, which), x, found)
    seconds = (time.process_time() - started) / len(x)
    row = {"ms_per_image": round(1e3 * seconds, 2)}
    by_label = in_parts(lambda part, which: explain(model, part, which), x, y)
    row["alignment"] = interval(alignment(by_label, shared["class_mean"][y]))
    row["stability"] = {}
    for source in ("noise", "images"):
        some = shared[source]
        each = [stability(explain(model, some, torch.full((len(some),), label))) for label in range(10)]
        row["stability"][source] = interval(torch.tensor(each))
    probability = lambda part: torch.softmax(model(part), 1).gather(1, found[:, None]).squeeze(1)  # noqa: E731
    curves = deletion_and_insertion(probability, x, attribution.abs().sum(1), steps=args.steps)
    row["deletion_auc"], row["insertion_auc"] = interval(curves.deletion_auc), interval(curves.insertion_auc)
    row["insertion_minus_deletion"] = interval(curves.insertion_auc - curves.deletion_auc)
    row["infidelity"] = interval(infidelity(attribution, shared["perturbed"]))
    row["infidelity_rescaled"] = interval(infidelity(attribution, shared["perturbed"], rescale=True))
    row["max_sensitivity"] = interval(
        max_sensitivity(
            lambda some: in_parts(lambda part, which: explain(model, part, which), some, found),
            x, radius=RADIUS, samples=args.samples,
        )
    )  # fmt: skip
    if args.roar:
        data = shared["roar"]
        guess = shared["roar_found"]
        row["diffroar"] = diffroar(
            lambda some: in_parts(lambda part, which: explain(model, part, which), some, guess),
            data, (args.roar, len(data[0]) - args.roar), args.seed,
        )  # fmt: skip
    return row


def prepare(model, images, args):
    """What all methods share on one network."""
    x_train, y_train, x_test, y_test = images
    x, y = x_test[: args.images], y_test[: args.images]
    found = classes(model, x)
    mean = torch.stack([x_train[y_train == label].mean(0) for label in range(10)])
    generator = torch.Generator().manual_seed(args.seed)
    score = lambda part: model(part).gather(1, found[:, None]).squeeze(1)  # noqa: E731
    extra = slice(args.images, args.images + args.roar + args.roar // 2)
    roar = (x_test[extra], y_test[extra])
    return {
        "x": x,
        "y": y,
        "found": found,
        "class_mean": mean - mean.mean(0),
        "noise": torch.randn(16, 3, 32, 32, generator=generator),
        "images": x[:16],
        "perturbed": perturb(score, x, deviation=NOISE, samples=16, seed=args.seed),
        "roar": roar,
        "roar_found": classes(model, roar[0]) if args.roar else None,
    }


def networks(args, images):
    """Names, networks and what was trained of them."""
    if args.net == "resnet56":
        model = CifarResNet(56)
        stored = torch.load(args.weights, map_location="cpu", weights_only=True)
        stored = stored.get("state_dict", stored)
        model.load_state_dict({key.removeprefix("module."): value for key, value in stored.items()})
        yield "ResNet-56", model.eval(), None, ("plain gradient", "SoftPullback", "pullback ascent")
        return
    for kind in ("explor", "ordinary"):
        model, seconds = explanation_nets.trained(
            kind, *images[:2], epochs=args.epochs, cache=args.cache, seed=args.seed
        )
        names = tuple(METHODS) if kind == "explor" else tuple(name for name in METHODS if name != "held gradient")
        yield kind, model, round(seconds), names


def normalised(x, net):
    """Pictures as the networks see them."""
    scaled = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN) / STD if net == "resnet56" else (scaled - 0.5) / 0.25


def main():
    """Measure, print, write JSON and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=("small", "resnet56"), default="small")
    parser.add_argument("--weights", type=Path, help="state dict of the ResNet-56")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--cache", type=Path, help="folder that keeps the small networks")
    parser.add_argument("--train", type=int, default=16000, help="training images of the small networks")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12, help="steps of insertion and deletion")
    parser.add_argument("--samples", type=int, default=4, help="neighbours for sensitivity")
    parser.add_argument("--roar", type=int, default=2000, help="images on which DiffROAR retrains; 0: leave it out")
    parser.add_argument("--captum", action="store_true", help="measure captum's methods on the ordinary net too")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which ones to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("cifar10", data_dir=args.data_dir)
    x_train, y_train = normalised(data.x_train[: args.train], args.net), torch.from_numpy(data.y_train[: args.train])
    images = (x_train, y_train, normalised(data.x_test[:6000], args.net), torch.from_numpy(data.y_test[:6000]))
    document = {
        "data": data.name,
        "data_digest": data.digest,
        "command": "python benchmarks/" + " ".join(
            [Path(sys.argv[0]).name, *("FOLDER" if "/" in part else part for part in sys.argv[1:])]
        ),
        "seed": args.seed,
        "settings": {"noise": NOISE, "radius": RADIUS, "levels": LEVELS, "images": args.images},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": 1, "device": "cpu"},
        "commit": commit(),
        "networks": {},
    }  # fmt: skip
    found = list(networks(args, images))
    scaling = (MEAN, STD) if args.net == "resnet56" else (0.5, 0.25)
    if args.figures:
        shown = {name: (model, {method: METHODS[method] for method in methods}) for name, model, _, methods in found}
        explanation_figures.draw(args.figures, shown, images[2], images[3], data.class_names, args.net, scaling)
        models = {name: model for name, model, _, _ in found}
        explanation_figures.draw_counterfactuals(
            args.figures, models, images[2], images[3], data.class_names, args.net, scaling
        )
    for name, model, seconds, methods in found:
        accuracy = float((classes(model, images[2][:2000]) == images[3][:2000]).float().mean())
        shared = prepare(model, images, args)
        chosen = {method: METHODS[method] for method in methods if method in args.methods}
        if args.captum and name == "ordinary":
            chosen = chosen | peers(model)
        size = sum(parameter.numel() for parameter in model.parameters())
        entry = {"parameters": size, "test_accuracy": accuracy, "training_cpu_s": seconds, "methods": {}}
        document["networks"][name] = entry
        for method, explain in chosen.items():
            row = entry["methods"][method] = judge(model, explain, shared, args)
            print(name, accuracy, method, json.dumps(row), flush=True)
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
