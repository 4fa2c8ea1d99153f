"""Networks whose gradients `benchmarks/explanations.py` compares: `explor`, and an ordinary CNN of the same size.

Both are trained in the same way on the same images; the ordinary one has ReLU, batch normalisation and max pooling
where `explor` has its own layers.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import backbones
from slots.rounding import multiplies_bfloat16
from slots.training.muon import Muon, matrices

WIDTHS = (32, 64, 128)
BATCH = 250
FILTERS = 0.24  # first rate of Muon
REST = 3e-3  # highest rate of AdamW
EXPLOR = {
    "widths": list(WIDTHS),
    "stem": "whitening",
    "stem_kernel": 2,
    "block": "pool",
    "across": 0,
    "a_x": 2.0,
    "a_l": 1.0,
    "key": "detached",
    "pooling": "max",
}


class Classifier(nn.Module):
    """Features and a linear layer without bias."""

    def __init__(self, body, feature_dim):
        super().__init__()
        self.body = body
        self.linear = nn.Linear(feature_dim, 10, bias=False)

    def forward(self, x):
        """Class scores."""
        return self.linear(self.body(x))


class Largest(nn.Module):
    """The largest value over all places."""

    def forward(self, x):
        """Maps to features."""
        return x.amax((2, 3))


def ordinary():
    """Stem, then blocks of convolution, max pooling, BatchNorm, ReLU, convolution, BatchNorm, ReLU."""
    stem = WIDTHS[0] - 8  # what `explor` looks up in the images: 24 filters
    layers = [nn.Conv2d(3, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
    for before, after in zip((stem, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, Largest())


def build(kind, seed=0):
    """A network with fresh weights."""
    torch.manual_seed(seed)
    if kind == "explor":
        body = backbones.build("explor", input_shape=(3, 32, 32), **EXPLOR)
        return Classifier(body, body.feature_dim)
    return Classifier(ordinary(), WIDTHS[-1])


def shifted(x, generator):
    """Each image mirrored or not, and moved by up to 2 pixels."""
    flip = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(flip, x.flip(3), x)
    padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    moves = torch.randint(0, 5, (len(x), 2), generator=generator).tolist()
    return torch.stack([image[:, i : i + 32, j : j + 32] for image, (i, j) in zip(padded, moves, strict=True)])


def train(model, x, y, *, epochs, seed=0):
    """Cross-entropy; Muon for filters, AdamW for the rest; returns processor seconds."""
    started = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model.body, backbones.AbstractBackbone):
        model.body.prepare_(x[:2000])
    moved = matrices(model.body)
    ids = {id(parameter) for parameter in moved}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in ids]
    muon, adam = Muon([{"params": moved, "lr": FILTERS}]), torch.optim.AdamW(rest, lr=REST, weight_decay=0.05)
    model.train()
    done, steps, half = 0, epochs * (len(x) // BATCH), multiplies_bfloat16(x.device)
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            if len(batch) < BATCH:
                continue
            share = done / steps
            warm = min(1.0, share / 0.2) if share < 0.2 else 0.5 * (1 + math.cos(math.pi * (share - 0.2) / 0.8))
            muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = FILTERS * (1 - share), REST * max(warm, 0.01)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                scores = model(shifted(x[batch], generator).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(scores.float(), y[batch], label_smoothing=0.1)
            muon.zero_grad()
            adam.zero_grad()
            loss.backward()
            muon.step()
            adam.step()
            total, done = total + loss.item(), done + 1
        print(
            f"  epoch {epoch + 1}  loss {total * BATCH / len(x):.3f}  {time.process_time() - started:.0f} s", flush=True
        )
    model.eval()
    return time.process_time() - started


def trained(kind, x, y, *, epochs, cache=None, seed=0):
    """A trained network and the processor seconds it took; kept in the folder ``cache`` where one is given."""
    model = build(kind, seed)
    path = None if cache is None else Path(cache) / f"{kind}-{len(x)}-{epochs}-{seed}.pt"
    if path is not None and path.is_file():
        stored = torch.load(path, weights_only=True)
        model.load_state_dict(stored["state"])
        return model.eval(), stored["seconds"]
    seconds = train(model, x, y, epochs=epochs, seed=seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state": model.state_dict(), "seconds": seconds}, path)
    return model, seconds
