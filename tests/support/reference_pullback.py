"""Backward passes written out by hand, one number after the other."""

import math

import torch
from torch import nn


def normal_gate(z, width):
    """Phi(z / width) by the error function."""
    return 0.5 * (1 + math.erf(z / width / math.sqrt(2)))


def logistic_gate(z, width):
    return 1 / (1 + math.exp(-z / width))


def two_layers(first, second, x, gate):
    """Value of ``second @ relu(first @ x)``, and its gradient in x with ``gate(z)`` for each hidden unit; lists."""
    hidden = [sum(w * v for w, v in zip(row, x, strict=True)) for row in first]
    value = sum(w * max(z, 0.0) for w, z in zip(second, hidden, strict=True))
    slopes = [sum(second[j] * gate(hidden[j]) * first[j][i] for j in range(len(hidden))) for i in range(len(x))]
    return value, slopes


def max_pool(x, upstream, *, kernel, stride, padding, dilation, temperature):
    """Gradient of softmax pooling with given weights: each window shares its gradient out; x (height, width)."""
    height, width = x.shape
    slopes = torch.zeros_like(x)
    for row in range(upstream.shape[0]):
        for column in range(upstream.shape[1]):
            inside = []
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    place = (
                        row * stride[0] - padding[0] + i * dilation[0],
                        column * stride[1] - padding[1] + j * dilation[1],
                    )
                    if 0 <= place[0] < height and 0 <= place[1] < width:
                        inside.append(place)
            top = max((float(x[place]) for place in inside), default=0.0)
            odds = [math.exp((float(x[place]) - top) / temperature) for place in inside]
            for place, odd in zip(inside, odds, strict=True):
                slopes[place] += upstream[row, column] * odd / sum(odds)
    return slopes


def attention(query, key, value, upstream, temperature, allowed):
    """Gradient in the values of softened attention, whose weights are given; one head, (place, feature)."""
    slopes = torch.zeros_like(value)
    for i in range(len(query)):
        places = [j for j in range(len(key)) if allowed[i][j]]
        scores = [float(query[i] @ key[j]) / math.sqrt(query.shape[1]) / temperature for j in places]
        odds = [math.exp(score - max(scores)) for score in scores]
        for j, odd in zip(places, odds, strict=True):
            slopes[j] += upstream[i] * odd / sum(odds)
    return slopes


def linear_twin(module):
    """A copy of a network without its ReLUs' and max poolings' choices: half of it, and the average."""
    if isinstance(module, nn.ReLU):
        return Half()
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, count_include_pad=False)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*map(linear_twin, module))
    return module


class Half(nn.Module):
    def forward(self, x):
        return x / 2
