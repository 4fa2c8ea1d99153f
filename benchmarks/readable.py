"""Whose slots show the same template for any input, by which ingredient, and what it costs.

    python benchmarks/readable.py --data mnist --images 10000 --epochs 4 --output benchmarks/results/readable-mnist.json

Each row is a fit of one backbone: as it comes, and with one ingredient changed. The template of a slot is the gradient
of the features along it (`AbstractBackbone.template`). Stability is the mean cosine of a slot's templates for 16
inputs: Gaussian noise as large as the images in each channel, or test images. Contrast is the same for what a slot has
more than the mean of all slots, which is what decides. Beside them stand the cosine of templates of slots of different
classes, which is high where a net draws one picture for all, and the alignment on noise: the cosine of the contrast
with the class's mean image minus the mean of all. ``--rows`` chooses some. Each fit is repeated for ``--seeds``; what
stands in the file is the mean over them with the half-width of its 95 % interval (Student's t; 0 for one seed), and
each seed's own figures, in which ± is twice the standard error over the slots.

    python benchmarks/readable.py --data mnist --figure docs/readable.png

draws the templates of one slot a net, from what the run left in ``--models``, and

    python benchmarks/readable.py --curve docs/readable-curve.png --output benchmarks/results/readable-mnist.json

what accuracy and stability are for each weight of the loss, from that file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch.nn import functional

from backbones.base import evaluating
from backbones.explanations.metrics import alignment, stability
from backbones.grp import detached_gates
from protocols.app.fit import fit_and_save
from protocols.data.loading import load_data
from protocols.recipes import find_recipe, load_model, plan
from protocols.recipes.building import build_backbone
from protocols.summaries.evaluation import evaluate
from slots.training.fitting import fit

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.recorded import keep, made_with

INPUTS, SLOTS = 16, 60
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
WHOLE = {"widths": [32, 64, 64], "windows": [7, 3, 7], "strides": [2, 2, 7]}
TALL = {"widths": [32, 64, 64], "windows": [3, 3, 7], "strides": [2, 2, 7]}


def _stabilized(weight):
    """Name of the row with this weight of the loss."""
    return "no pooling, soft gates, stabilized" + ("" if weight == 1 else f" {weight:g}")


ROWS = {  # backbone, its options beside the recipe's, changes of the plan
    "pixels": ("pixels", {}, {}),
    "cnn": ("cnn", {}, {}),
    "cnn, stabilized": ("cnn", {}, {"stabilize": 1.0}),
    "explor": ("explor", {}, {}),
    "explor, stabilized": ("explor", {}, {"stabilize": 1.0}),
    "positive": ("positive", {"activation": "silu"}, {}),
    "positive, mean": ("positive", {"activation": "silu", "pooling": "mean"}, {}),
    "directional": ("directional", {}, {}),
    "directional, soft gates": ("directional", {"activation": "silu"}, {}),
    "directional, soft gates, stabilized": ("directional", {"activation": "silu"}, {"stabilize": 1.0}),
    "unfolding": ("unfolding", {}, {}),
    "unfolding, reconstruction": ("unfolding", {}, {"reconstruction": 1.0}),
    "unfolding, stabilized 0.1": ("unfolding", {}, {"stabilize": 0.1}),
    "unfolding, stabilized 0.3": ("unfolding", {}, {"stabilize": 0.3}),
    "unfolding, stabilized": ("unfolding", {}, {"stabilize": 1.0}),
    "unfolding, stabilized 3": ("unfolding", {}, {"stabilize": 3.0}),
    "unfolding, soft gates": ("unfolding", {"gate": "silu"}, {}),
    "unfolding, soft gates, stabilized": ("unfolding", {"gate": "silu"}, {"stabilize": 1.0}),
    "no pooling": ("unfolding", {**WHOLE, "residual": 0, "pooling": "mean"}, {}),
    "no pooling, small filters": ("unfolding", {**TALL, "residual": 0, "pooling": "mean"}, {}),
    "no pooling, soft gates": ("unfolding", {**WHOLE, "residual": 0, "pooling": "mean", "gate": "silu"}, {}),
    "no pooling, soft gates, weights of at least 0": (
        "unfolding",
        {**WHOLE, "residual": 0, "pooling": "mean", "gate": "silu", "signs": "nonnegative"},
        {},
    ),
    **{
        _stabilized(weight): (
            "unfolding",
            {**WHOLE, "residual": 0, "pooling": "mean", "gate": "silu"},
            {"stabilize": weight},
        )
        for weight in WEIGHTS
    },
    "cheated, directions as they are": (
        "unfolding",
        {**WHOLE, "residual": 0, "pooling": "mean", "gate": "silu"},
        {"loss": "directions as they are"},
    ),
    "cheated, plain cosine": (
        "unfolding",
        {**WHOLE, "residual": 0, "pooling": "mean", "gate": "silu"},
        {"loss": "plain cosine"},
    ),
}


def inputs_of(model, images, rng):
    """Noise inputs and test inputs, as the backbone sees them."""
    seen = model.preprocessing(images, model.device)
    size = seen.square().mean((0, 2, 3), keepdim=True).sqrt()
    noise = torch.from_numpy(rng.normal(size=(INPUTS, *seen.shape[1:])).astype(np.float32)) * size
    return noise, seen[:INPUTS]


def templates_of(model, slots, inputs, *, contrast=False):
    """Templates of shape (slot, input, pixel); with ``contrast`` of what a slot has more than the mean of all slots."""
    weights = model.head.weights.detach()
    weights = (weights - weights.mean(0) if contrast else weights)[slots]
    if not hasattr(model.backbone, "template"):  # pixels: the slot itself, whatever the input
        return weights[:, None].expand(-1, len(inputs), -1)
    return torch.stack([model.backbone.template(inputs, weight).flatten(1) for weight in weights])


def measured(model, data, seed):
    """All figures of one fitted model."""
    rng = np.random.default_rng(seed)
    answers = evaluate(model.predict(data.x_test), data.y_test)
    noise, images = inputs_of(model, data.x_test[rng.permutation(len(data.x_test))[:2000]], rng)
    slots = torch.from_numpy(np.sort(rng.permutation(model.head.n_slots)[:SLOTS]))
    labels = model.head.labels[slots]
    mean = model.preprocessing(data.x_train[:5000], model.device).flatten(1).mean(0)
    found = {"accuracy": answers.accuracy, "matched": answers.matched, "slots": model.head.n_slots}
    for name, inputs in (("noise", noise), ("images", images)):
        raw, own = (templates_of(model, slots, inputs, contrast=contrast) for contrast in (False, True))
        for kind, templates in (("stability", raw), ("contrast", own)):
            each = np.array([stability(rows) for rows in templates])
            found[f"{kind} on {name}"] = [each.mean(), 2 * each.std() / len(each) ** 0.5]
        unit = functional.normalize(raw.flatten(2), dim=2).mean(1)
        found[f"different classes on {name}"] = float((unit @ unit.T)[labels[:, None] != labels].mean())
        if name == "noise":
            wanted = torch.stack([_mean_image(model, data, int(label)) - mean for label in labels])
            near = alignment(own.mean(1), wanted)
            found["alignment on noise"] = [float(near.mean()), 2 * float(near.std()) / len(near) ** 0.5]
    return found


def _mean_image(model, data, label):
    return model.preprocessing(data.x_train[data.y_train == label][:500], model.device).flatten(1).mean(0)


def simpler(loss):
    """A regulariser like `stabilize` but for one thing: what two networks have cheated."""

    def regularizer(backbone, x):
        features = backbone(x)
        known, seen = features.detach().float(), x.detach().flatten(1)
        apart = known if loss == "directions as they are" else known - known.mean(0)
        directions = functional.normalize(apart, dim=1)[:16]
        others = x.detach().roll(-1, 0)[:16]
        noise = torch.randn_like(others) * x.detach().square().mean((0, 2, 3), keepdim=True).sqrt()
        inputs = torch.cat([noise, others]).requires_grad_()
        with evaluating(backbone), detached_gates(backbone):
            along = (backbone(inputs) * directions.repeat(2, 1)).sum()
        (drawn,) = torch.autograd.grad(along, inputs, create_graph=True)
        drawn = drawn.flatten(1)
        if loss != "plain cosine":
            drawn = drawn @ (seen - seen.mean(0)).T
        return features, (1 - functional.cosine_similarity(*drawn.chunk(2), dim=1)).mean()

    return regularizer


def folder_of(args, row, seed):
    """Where the model of a row and seed lies; that of the first seed bears the row's name alone."""
    name = row.replace(" ", "-").replace(",", "")
    return args.models / (name if seed == args.seeds[0] else f"{name}-seed{seed}")


def fitted(row, data, seed, args):
    """The model of one row and seed, and the seconds of its fit."""
    backbone, options, changes = ROWS[row]
    changes = dict(changes)
    loss = changes.pop("loss", None)
    standing = find_recipe(backbone, data.name).backbone if backbone == "unfolding" else {}
    keeps = {} if "widths" in options else standing
    name, recipe = plan(data, backbone, {**keeps, **options}, seed=seed, **changes)
    if args.epochs and name != "pixels":
        recipe = replace(recipe, train=replace(recipe.train, epochs=args.epochs))
    began = time.process_time()
    out = folder_of(args, row, seed)
    if loss is None:
        model, _ = fit_and_save(data, name, recipe, out=out, command="")
    else:
        net = build_backbone(name, data, recipe, seed)
        model, _ = fit(data.x_train, data.y_train, backbone=net, config=recipe.train, regularizer=simpler(loss))
        model.save(out)
    return model, time.process_time() - began


def part_of(data, n, seed):
    """So many training images, chosen at random; all where it is None."""
    if n is None:
        return data
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data.x_train))[:n])
    return replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen])


def over_seeds(each):
    """Mean of every figure over the seeds, and the half-width of its interval."""

    def told(name):
        values = np.array([np.ravel(one[name])[0] for one in each])
        if len(values) == 1:
            return [float(values[0]), 0.0]
        spread = values.std(ddof=1) / len(values) ** 0.5
        return [float(values.mean()), float(student.ppf(0.975, len(values) - 1) * spread)]

    return {name: told(name) for name in each[0]}


def draw_curve(args):
    """Accuracy against stability, one point a weight, with the intervals over the seeds."""
    from matplotlib.figure import Figure

    rows = json.loads(args.output.read_text())["rows"]
    points = [("0", rows["no pooling, soft gates"]), *((f"{it:g}", rows[_stabilized(it)]) for it in WEIGHTS)]
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axis = figure.subplots()
    for on, color in (("noise", "C0"), ("images", "C1")):
        x, y = ([point[name] for _, point in points] for name in (f"stability on {on}", "accuracy"))
        (xs, xerr), (ys, yerr) = (np.array(it).T for it in (x, y))
        axis.errorbar(xs, 100 * ys, 100 * yerr, xerr, fmt="o-", color=color, capsize=2, label=f"on {on}")
        for (weight, _), *place in zip(points, xs, 100 * ys, strict=True):
            axis.annotate(weight, place, xytext=(4, 5), textcoords="offset points", fontsize=8, color=color)
    axis.set(xlabel="how far the templates of a slot agree (cosine)", ylabel="accuracy, per cent")
    axis.legend(title="weight of the loss, and the inputs", fontsize=8, title_fontsize=8, loc="lower left")
    axis.grid(alpha=0.3)
    figure.savefig(args.curve, dpi=110)


def draw(args, data):
    """A sheet: one row a net, with the templates of one slot for three noise inputs and three images."""
    from matplotlib.figure import Figure

    rows = [row for row in args.rows if folder_of(args, row, args.seeds[0]).is_dir()]
    figure = Figure(figsize=(7.2, 1.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 6, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        model = load_model(folder_of(args, row, args.seeds[0]), device="cpu")
        rng = np.random.default_rng(args.seeds[0])
        noise, images = inputs_of(model, data.x_test[rng.permutation(len(data.x_test))[:2000]], rng)
        slot = torch.tensor([int((model.head.labels == args.label).nonzero()[0, 0])])
        templates = templates_of(model, slot, torch.cat([noise[:3], images[:3]]), contrast=True)[0]
        for axis, template in zip(line, templates, strict=True):
            picture = template.reshape(noise.shape[1:])
            size = float(picture.abs().quantile(0.995).clamp_min(1e-12))
            if len(picture) == 1:
                axis.imshow(picture[0], cmap="RdBu_r", vmin=-size, vmax=size)
            else:
                axis.imshow((picture / size / 2 + 0.5).clamp(0, 1).permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(row.replace(", ", ",\n"), fontsize=7, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], ["noise"] * 3 + ["test image"] * 3, strict=True):
        axis.set_title(title, fontsize=8)
    figure.savefig(args.figure, dpi=110)


def main():
    """Fit and measure the rows, or draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", type=Path, default=Path("runs/readable"))
    parser.add_argument("--model", type=Path, help="measure this model folder alone")
    parser.add_argument("--label", type=int, default=3, help="with --figure: label of the slots that are drawn")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--curve", type=Path, help="draw accuracy and stability by the loss's weight from --output")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.curve:
        draw_curve(args)
        return
    data = load_data(args.data)
    if args.figure:
        draw(args, data)
        return
    if args.model:
        print(json.dumps(measured(load_model(args.model, device="cpu"), data, args.seeds[0]), indent=1))
        return
    found = made_with(__file__, args.seeds, ["torch", "numpy", "scipy"]) | {"rows": {}}
    for row in args.rows:
        each = []
        for seed in args.seeds:
            some = part_of(data, args.images, seed)
            model, seconds = fitted(row, some, seed, args)
            each.append(measured(model, some, seed) | {"fit_s": round(seconds, 1)})
            print(row, seed, json.dumps(each[-1]), flush=True)
            found["rows"][row] = over_seeds(each) | {"each": each}
            keep(found, args.output)


if __name__ == "__main__":
    main()
