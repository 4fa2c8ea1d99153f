"""Two layers on two classes: the nets `disjunction`, `directional` and `gumbel` on planes and cars of CIFAR-10.

The literal nets: the backbone, SoftMaxPool over each class's half of its features, one learned factor.
`benchmarks/layers.py --early-nets` runs this.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn import functional

import backbones
from backbones.layers.softmax_pooling import Scale, SoftMaxPool

NAMES = ("disjunction", "directional", "gumbel")
BATCH = 128
PEAK = 4e-3


def literal(name, *, classes=2, **options):
    """Backbone, softmax pooling over classes, one factor."""
    backbone = backbones.build(name, input_shape=(3, 32, 32), **options)
    return nn.Sequential(backbone, SoftMaxPool(classes), Scale())


def rolled(x, generator, *, flip=True):
    """Each image mirrored or not, and rolled by up to 2 pixels."""
    if flip:
        mirror = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
        x = torch.where(mirror, x.flip(3), x)
    moves = torch.randint(-2, 3, (len(x), 2), generator=generator)
    side = x.shape[2]
    rows = (torch.arange(side) - moves[:, :1]) % side
    columns = (torch.arange(side) - moves[:, 1:]) % side
    x = x.gather(2, rows[:, None, :, None].expand_as(x))
    return x.gather(3, columns[:, None, None, :].expand_as(x))


def train(model, x, y, *, epochs, seed=0, peak=PEAK, flip=True, quick=(), smoothing=0.0):
    """AdamW with weight decay 0.01, OneCycle, batches of 128; returns processor seconds.

    The parameters in ``quick`` learn at ten times the rate.
    """
    started = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    ids = {id(parameter) for parameter in quick}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [p for p in learning if id(p) not in ids]}]
    peaks = [peak]
    if ids:
        groups.append({"params": list(quick), "weight_decay": 0.0})  # a filter is a patch, not small by nature
        peaks.append(10 * peak)
    optimizer = torch.optim.AdamW(groups, lr=peak, weight_decay=0.01)
    steps = epochs * (len(x) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps)
    backbone = model[0]
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for step in range(len(x) // BATCH):
            batch = order[step * BATCH : (step + 1) * BATCH]
            backbone.schedule_((epoch + step * BATCH / len(x)) / epochs)
            scores = model(rolled(x[batch], generator, flip=flip))
            loss = functional.cross_entropy(scores, y[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
            backbone.constrain_()
    model.eval()
    return time.process_time() - started


@torch.no_grad()
def accuracy(model, x, y):
    """Share of the inputs whose largest score is their label's."""
    hits = [(model(a).argmax(1) == b).sum() for a, b in zip(x.split(500), y.split(500), strict=True)]
    return float(sum(hits)) / len(x)


def scaled(images):
    """uint8 (example, height, width[, channel]) as float32 (example, channel, height, width) in [0, 1]."""
    x = torch.from_numpy(images).float() / 255
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x.contiguous()


def standardized(x, x_test):
    """Both parts, with each channel's mean and deviation over the first."""
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    return (x - mean) / deviation, (x_test - mean) / deviation


def measure(data, *, epochs, seeds, report):
    """One row a net: test accuracies over the seeds on planes (class 0) and cars (class 1)."""
    wanted, wanted_test = data.y_train < 2, data.y_test < 2
    x, x_test = standardized(scaled(data.x_train[wanted]), scaled(data.x_test[wanted_test]))
    y, y_test = torch.from_numpy(data.y_train[wanted]).long(), torch.from_numpy(data.y_test[wanted_test]).long()
    rows = []
    for name in NAMES:
        found, seconds = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            model = literal(name)
            seconds.append(train(model, x, y, epochs=epochs, seed=seed))
            found.append(accuracy(model, x_test, y_test))
        rows.append(
            {
                "net": name,
                "test_accuracy": found,
                "train": len(x),
                "test": len(x_test),
                "epochs": epochs,
                "parameters": sum(p.numel() for p in model.parameters()),
                "cpu_s": [round(one, 1) for one in seconds],
            }
        )
        report(rows, f"{name:12} {[f'{100 * one:.2f}' for one in found]} %  {seconds[-1]:.0f} s")
    return rows
