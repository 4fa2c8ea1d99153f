"""Parts: what a model of parts reaches, and whether its named parts are what decides.

    slots fit --backbone parts --data mnist --seed 0 --out runs/mnist-parts
    python benchmarks/parts.py runs/mnist-parts --data mnist --output benchmarks/results/parts.json --add

For a fitted model and the test part of its data: accuracy; parts, and pairs of parts that are alike; different patches
of a decision; how many answers change when the named patches are blanked, beside as many boxes of the same size at
random places, and beside such boxes that hold as much light; the same for the largest patch alone; how many change when
the named parts count as not found, pixels as they are, beside as many others that were found; how often the largest
part stays the same under noise. A row takes the place of one of the same data and seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from protocols.data.loading import load_data
from protocols.provenance import versions
from protocols.recipes.building import load_model
from slots.parts import explain_by_parts

ALIKE = 0.95  # cosine of two parts that are one
NOISE = 0.2  # deviation, in units of the range of pixels; clipped at 0.25 as in the consistency measure of others
TRIES = 200  # boxes drawn to find some of equal light


def blanked(image, boxes):
    """The image with boxes in one colour: a photograph's mean, or a drawing's darkest, which is its background."""
    changed = image.copy()
    colour = image.mean((0, 1)) if image.ndim == 3 and image.shape[2] == 3 else image.min((0, 1))
    for top, left, bottom, right in boxes:
        changed[top:bottom, left:right] = colour
    return changed


def elsewhere(image, boxes, rng, *, equal):
    """As many boxes of the same sizes at random places; with ``equal`` those that take most nearly as much light."""
    height, width = image.shape[:2]
    wanted = np.abs(image.astype(float) - blanked(image, boxes)).sum()
    best, gap = None, np.inf
    for _ in range(TRIES if equal else 1):
        drawn = []
        for top, left, bottom, right in boxes:
            up, across = rng.integers(0, height - (bottom - top) + 1), rng.integers(0, width - (right - left) + 1)
            drawn.append((up, across, up + bottom - top, across + right - left))
        taken = np.abs(image.astype(float) - blanked(image, drawn)).sum()
        if abs(taken - wanted) < gap:
            best, gap = drawn, abs(taken - wanted)
    return best


def columns(model, answer):
    """Places in the feature vector of the parts that an answer names."""
    rows, across = model.backbone.cells
    return [(share.part * rows + row) * across + column for share in answer.shares for row, column in share.cells]


def others(model, x, named, rng):
    """For each image as many features that were found in it and are not named; all where they are fewer."""
    with torch.no_grad():
        found = (model.backbone(model.preprocessing(x, model.device)) > 0).cpu().numpy()
    drawn = []
    for present, mine in zip(found, named, strict=True):
        rest = np.setdiff1d(np.flatnonzero(present), mine)
        drawn.append(rng.permutation(rest)[: len(mine)].tolist())
    return drawn


def forgotten(model, x, features):
    """Labels where some features, others for each image, are taken for not found."""
    labels = []
    for image, mine in zip(x, features, strict=True):

        def hide(_module, _inputs, output, mine=mine):
            output = output.clone()
            output[:, mine] = 0
            return output

        handle = model.backbone.register_forward_hook(hide)
        try:
            labels.append(model.predict(image[None]).labels[0])
        finally:
            handle.remove()
    return np.array(labels)


def measured(model, x, y, rng):
    """All figures of one model on some test examples."""
    labels = model.predict(x).labels
    answers = explain_by_parts(model, x)
    boxes = [[share.box for share in answer.shares] for answer in answers]
    named = [columns(model, answer) for answer in answers]

    def changed(images):
        return float((model.predict(np.stack(images)).labels != labels).mean())

    noisy = np.clip(x + 255 * np.clip(rng.normal(0, NOISE, x.shape), -0.25, 0.25), 0, 255).astype(np.uint8)
    again = explain_by_parts(model, noisy)
    first = [(a.shares[0].part, b.shares[0].part) for a, b in zip(answers, again, strict=True) if a.shares and b.shares]
    vectors = functional.normalize(model.backbone.vectors, dim=1)
    likeness = (vectors @ vectors.T).triu(1)
    trained = model.head.weights[model.head.pooled]
    return {
        "examples": len(x),
        "accuracy_of_these": float((labels == y).mean()),
        "parts": model.backbone.n_parts,
        "receptive_field": model.backbone.options["receptive_field"],
        "pairs_alike": int((likeness > ALIKE).sum()),
        "trained_slots": len(trained),
        "features_a_slot": float((trained != 0).sum(1).float().mean()),
        "patches_a_decision": float(np.mean([len(at) for at in boxes])),
        "most_patches_a_decision": max(map(len, boxes)),
        "pixels_under_patches": float(np.mean([under(image, at) for image, at in zip(x, boxes, strict=True)])),
        "changed_without_named": changed([blanked(image, at) for image, at in zip(x, boxes, strict=True)]),
        "changed_without_random": changed(
            [blanked(image, elsewhere(image, at, rng, equal=False)) for image, at in zip(x, boxes, strict=True)]
        ),
        "changed_without_equal_light": changed(
            [blanked(image, elsewhere(image, at, rng, equal=True)) for image, at in zip(x, boxes, strict=True)]
        ),
        "changed_without_largest": changed([blanked(image, at[:1]) for image, at in zip(x, boxes, strict=True)]),
        "changed_without_one_of_equal_light": changed(
            [blanked(image, elsewhere(image, at[:1], rng, equal=True)) for image, at in zip(x, boxes, strict=True)]
        ),
        "changed_without_named_parts": float((forgotten(model, x, named) != labels).mean()),
        "changed_without_other_parts": float((forgotten(model, x, others(model, x, named, rng)) != labels).mean()),
        "largest_part_stays_under_noise": float(np.mean([a == b for a, b in first])),
    }


def under(image, boxes):
    """Share of the pixels that lie under the boxes."""
    mask = np.zeros(image.shape[:2], bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask.mean()


def main():
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--examples", type=int, default=1000, help="test examples that are taken apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--add", action="store_true", help="beside the models that the file has")
    args = parser.parse_args()
    model, data = load_model(args.model), load_data(args.data, data_dir=args.data_dir)
    rng = np.random.default_rng(args.seed)
    rows = rng.permutation(len(data.x_test))[: args.examples]
    prediction = model.predict(data.x_test)
    right = prediction.labels == data.y_test
    record = {
        "data": args.data,
        "seed": args.seed,
        "accuracy": float(right.mean()),
        "matched": float(prediction.matched.mean()),
        "right_when_matched": float(right[prediction.matched].mean()),
        "slots": model.head.n_slots,
        **measured(model, data.x_test[rows], data.y_test[rows], rng),
        "threads": torch.get_num_threads(),
        "command": " ".join(["python benchmarks/parts.py", *sys.argv[1:]]),
        "versions": versions(),
    }
    print(json.dumps(record, indent=1))
    if args.output is not None:
        known = json.loads(args.output.read_text()) if args.add and args.output.exists() else []
        kept = [it for it in known if (it["data"], it["seed"]) != (args.data, args.seed)]
        args.output.write_text(json.dumps([*kept, record], indent=1) + "\n")


if __name__ == "__main__":
    main()
