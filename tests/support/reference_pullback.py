"""Backward passes written out by hand, one number after the other."""

import itertools
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


def between(z, low, high, gate):
    """A gate at either bound of a clamp; None: no bound."""
    opened = 1.0
    if low is not None:
        opened *= gate(z - low)
    if high is not None:
        opened *= gate(high - z)
    return opened


def leaky_gate(z, slope, gate):
    """Of the gradient as much as is open, and of the rest the slope."""
    opened = gate(z)
    return 1.0 * opened + slope * (1.0 - opened)


def hard_swish_gate(z, width):
    """Hard-swish over its input, at ``z / width``."""
    z = z / width
    return 0.0 if z <= -3 else 1.0 if z >= 3 else (z + 3) / 6


def smoothed_slope(function, z, deviation, points=20001, reach=9.0):
    """Derivative in z of the mean of ``function(z + e)``, e normal: the mean of ``function(z + e) e / deviation^2``."""
    total, step = 0.0, 2 * reach / (points - 1)
    for i in range(points):
        e = -reach + i * step
        total += function(z + deviation * e) * e * math.exp(-e * e / 2)
    return total * step / math.sqrt(2 * math.pi) / deviation


def share_out(x, windows, upstream, temperature):
    """Each window, a list of places, shares its gradient out by a softmax; returns slopes like x."""
    slopes = torch.zeros_like(x)
    for output, places in windows.items():
        top = max((float(x[place]) for place in places), default=0.0)
        odds = [math.exp((float(x[place]) - top) / temperature) for place in places]
        for place, odd in zip(places, odds, strict=True):
            slopes[place] += upstream[output] * odd / sum(odds)
    return slopes


def max_pool(x, upstream, *, kernel, stride, padding, dilation, temperature):
    """Gradient of softmax pooling with given weights, over maps of any number of axes."""
    windows = {}
    for output in itertools.product(*map(range, upstream.shape)):
        windows[output] = []
        for inside in itertools.product(*map(range, kernel)):
            geometry = zip(output, stride, padding, inside, dilation, strict=True)
            place = tuple(o * step - before + i * spread for o, step, before, i, spread in geometry)
            if all(0 <= p < n for p, n in zip(place, x.shape, strict=True)):
                windows[output].append(place)
    return share_out(x, windows, upstream, temperature)


def adaptive_max_pool(x, upstream, temperature):
    """The same with torch's adaptive windows, from ``floor(o n / m)`` to before ``ceil((o + 1) n / m)``."""
    windows = {}
    for output in itertools.product(*map(range, upstream.shape)):
        sides = zip(output, x.shape, upstream.shape, strict=True)
        spans = [range(math.floor(o * n / m), math.ceil((o + 1) * n / m)) for o, n, m in sides]
        windows[output] = list(itertools.product(*spans))
    return share_out(x, windows, upstream, temperature)


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
