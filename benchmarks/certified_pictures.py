"""Templates of fitted slots, and the nearest image that each model would call something else: docs/robustness.png.

Usage::

    slots fit --data mnist --robust l2:2.5 --out runs/certified
    slots fit --data mnist --backbone pixels --views none --epochs 8 --out runs/plain
    python benchmarks/certified_pictures.py --model "certified=runs/certified" --model "cross-entropy=runs/plain"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from explanation_figures import sheet

from protocols.data.loading import load_data
from protocols.pages.pictures import diverging
from protocols.recipes.building import load_model
from slots.head.similarities import normalize
from slots.robust import nearest_slot_radii
from slots.robust.certificate import LabelledSlots


def grey(rows, shape):
    """Rows in [0, 1] as RGB pictures."""
    side = (255 * np.clip(rows, 0, 1)).astype(np.uint8).reshape(-1, *shape)
    return [np.repeat(picture[..., None], 3, axis=2) for picture in side]


def templates(model, rows):
    """Of each class the slot that is the nearest to most images."""
    head = model.head
    slots = normalize(head.weights.detach()[head.pooled])
    labels = head.labels[head.pooled]
    wins = torch.bincount((torch.from_numpy(rows).float() @ slots.T).argmax(1), minlength=len(slots))
    best = [int(torch.where(labels == label, wins, -1).argmax()) for label in labels.unique()]
    return slots[best].double().numpy()


def counterfactuals(model, rows):
    """The nearest images with another nearest slot, and how far they are."""
    head = model.head
    slots = LabelledSlots.of(head.weights[head.pooled], head.labels[head.pooled])
    found = nearest_slot_radii(rows, slots, box=(0.0, 1.0), method="dual")
    return rows + found.changes, found.radii, slots.labels[found.rivals]


def main():
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True, help="TITLE=FOLDER")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--out", default="docs/robustness.png")
    arguments = parser.parse_args()
    data = load_data(arguments.data)
    shape = data.x_test.shape[1:3]
    rows = data.x_test[:3000].reshape(3000, -1) / 255
    chosen = rows[[int(np.flatnonzero(data.y_test == label)[0]) for label in np.unique(data.y_test)]]
    lines = [("image", grey(chosen, shape))]
    for part in arguments.model:
        title, folder = part.split("=")
        model = load_model(Path(folder), device="cpu")
        lines.append((f"{title}:\ntemplate", [diverging(it.reshape(shape)) for it in templates(model, rows)]))
        other, radii, labels = counterfactuals(model, chosen)
        lines.append(("nearest\nimage of\nanother\nslot", grey(other, shape)))
        lines.append(("change", [diverging(it.reshape(shape)) for it in other - chosen]))
        print(title, "lengths of the changes:", np.round(radii, 2), "to", [data.class_names[it] for it in labels])
    sheet(list(data.class_names), lines).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
