"""Neuron information and core sets, one neuron and one example at a time."""

import math

import torch


def information(first, second, x, y, mean, deviation, group, drawn):
    """Rise of the mean cross-entropy of ``second @ relu(first @ x)`` when a group is replaced by given noise."""
    total = 0.0
    for example, label, noise in zip(x.tolist(), y.tolist(), drawn.tolist(), strict=True):
        plain = [max(0.0, sum(w * v for w, v in zip(row, example, strict=True))) for row in first.tolist()]
        changed = [
            mean[i].item() + deviation[i].item() * noise[i] if i in group else value for i, value in enumerate(plain)
        ]
        total += _loss(second, changed, label) - _loss(second, plain, label)
    return total / len(x)


def _loss(second, hidden, label):
    logits = [sum(w * v for w, v in zip(row, hidden, strict=True)) for row in second.tolist()]
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


def smallest(enough, width):
    """The smallest top that is enough, by trying all of them."""
    return next(top for top in range(width + 1) if enough(top))


def moments(values):
    """Mean and deviation of each column, written out."""
    rows = values.tolist()
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    columns = zip(zip(*rows, strict=True), means, strict=True)
    deviations = [math.sqrt(sum((v - mean) ** 2 for v in column) / len(rows)) for column, mean in columns]
    return torch.tensor(means), torch.tensor(deviations)
