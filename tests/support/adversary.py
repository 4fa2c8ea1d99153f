"""A search for an input whose matched answer an update has changed; the tests and ``benchmarks/adversary.py`` share it.

It looks where such an input would have to be: inside an old slot and inside new caps at once, and next to the edges of
all caps. It knows nothing of the rule that makes it fail; it compares whole answers.
"""

from dataclasses import dataclass, fields

import torch

from slots.head.caps import SlotCaps
from slots.head.decision import decide, matching_pairs
from slots.head.prediction import Prediction
from slots.head.similarities import normalize

STEPS = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
"""Radians on either side of a cap's edge."""


@dataclass
class Tally:
    """What a search looked at and found.

    ``points``: inputs compared. ``matched``: of them matched by the old model. ``contested``: of those, inside the caps
    of a new slot of another label as well. ``edge``: of the matched, those whose old answer has a margin below 1e-6
    rad. ``changed``: matched inputs with any part of their answer changed.
    """

    points: int = 0
    matched: int = 0
    contested: int = 0
    edge: int = 0
    changed: int = 0

    def __add__(self, other):
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def part(caps, mask):
    """Some of the slots."""
    return SlotCaps(**{name: v[mask] if isinstance(v, torch.Tensor) else v for name, v in vars(caps).items()})


def changed_rows(old: Prediction, new: Prediction):
    """Inputs matched before of whose answer any part, to the last bit, is another now."""
    other = sum((getattr(old, name) != getattr(new, name)).astype(int) for name in vars(old))
    return old.matched & (other > 0)


def contested_rows(features, old: Prediction, new_caps, n_old):
    """Matched inputs that lie inside a new slot of another label too, whoever answers."""
    later = part(new_caps, torch.arange(len(new_caps.labels)) >= n_old)
    rows = torch.zeros(len(features), dtype=torch.bool)
    if len(later.labels):
        example, slot = matching_pairs(features, later)
        rows[example[later.labels[slot] != torch.from_numpy(old.labels)[example]]] = True
    return rows.numpy() & old.matched


def compare(features, old_caps, new_caps, block=4096):
    """Answers of the two heads to the same features, shape (example, view, feature)."""
    total = Tally()
    for rows in features.split(block):
        old, new = decide(rows, old_caps), decide(rows, new_caps)
        contested = contested_rows(rows, old, new_caps, len(old_caps.labels))
        edge = old.matched & (old.margins < 1e-6)
        counts = (old.matched, contested, edge, changed_rows(old, new))
        total += Tally(len(rows), *(int(mask.sum()) for mask in counts))
    return total


def depth(features, caps):
    """Smallest of the two cosines' distances to their thresholds, shape (..., slot); positive inside both caps."""
    unit = normalize(features)
    support = torch.where(caps.support > 1, torch.full_like(caps.support, 9.0), caps.support)
    return torch.minimum(unit @ caps.weights.T - caps.precision, unit @ caps.centres.T - support)


def pair_depth(x, caps, first, second):
    """How deep each row lies inside both slots of its pair, shape (row,)."""
    unit, found = normalize(x), []
    for slot in (first, second):
        found += [
            (unit * caps.weights[slot]).sum(-1) - caps.precision[slot],
            (unit * caps.centres[slot]).sum(-1) - caps.support[slot],
        ]
    return torch.stack(found).amin(0)


def climb(x, objective, steps, lr=0.05):
    """Gradient ascent on the sphere; every row on its own, normalised steps that get shorter."""
    x = normalize(x).detach()
    for step in range(steps):
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(x).sum(), x)
        with torch.no_grad():
            slope = normalize(slope - (slope * x).sum(-1, keepdim=True) * x)
            x = normalize(x + lr * (1 - step / steps) * slope)
    return x.detach()


def rivals(caps, n_old, count, generator):
    """Pairs (old slot, new slot of another label), the nearest pairs first among a random draw."""
    old, new = torch.arange(n_old), torch.arange(n_old, len(caps.labels))
    near = caps.centres[old] @ caps.centres[new].T
    near = near.masked_fill(caps.labels[old][:, None] == caps.labels[new], -2.0)
    near = near + 0.3 * torch.rand(near.shape, generator=generator)
    order = near.flatten().argsort(descending=True)
    order = order[near.flatten()[order] > -1.5]
    order = order.repeat(-(-count // max(1, len(order))))[:count]
    return old[order // max(1, len(new))], new[order % max(1, len(new))]


def common_points(caps, n_old, count, generator, *, steps=30, lr=0.1):
    """Points as deep as ascent gets them inside both an old slot and a new one of another label, shape (row, feature).

    Both of the starts are used: between the axes of the pair, and anywhere.
    """
    first, second = rivals(caps, n_old, count, generator)
    share = torch.rand(len(first), 1, generator=generator)
    noise = torch.randn(len(first), caps.weights.shape[1], generator=generator) / caps.weights.shape[1] ** 0.5
    start = share * caps.centres[first] + (1 - share) * caps.centres[second] + 0.5 * noise
    return climb(start, lambda x: pair_depth(x, caps, first, second), steps, lr), first, second


def edge_points(caps, slots, generator, inward=None):
    """Points on the edges of both caps of each slot and `STEPS` to either side, float64 of shape (row, feature).

    Parameters
    ----------
    slots : int64 tensor of shape (slot,)
    inward : float tensor of shape (slot, feature), optional
        Points whose direction from the axis is kept; default: random directions.
    """
    out = []
    for axes, limits in ((caps.weights, caps.precision), (caps.centres, caps.support)):
        axis = normalize(axes[slots].double())
        away = torch.randn(axis.shape, generator=generator, dtype=torch.float64) if inward is None else inward.double()
        away = normalize(away - (away * axis).sum(-1, keepdim=True) * axis)
        radius = limits[slots].double().clamp(-1, 1).arccos()[:, None]
        for step in STEPS:
            for sign in (-1, 1):
                angle = radius + sign * step
                out.append(angle.cos() * axis + angle.sin() * away)
    return torch.cat(out) if out else torch.zeros(0, caps.weights.shape[1], dtype=torch.float64)


def exit_points(caps, slot, start, generator, rounds=40):
    """Walk from inside a slot along random great circles and stop on its edge, both sides, float64 (2 row, feature).

    The edge of the *slot*, where either cap ends first; found by bisection in float64.
    """
    inside = normalize(start.double())
    away = torch.randn(inside.shape, generator=generator, dtype=torch.float64)
    away = normalize(away - (away * inside).sum(-1, keepdim=True) * inside)
    near, far = torch.zeros(len(start), 1).double(), torch.full((len(start), 1), 3.14).double()
    weights, centres = normalize(caps.weights[slot].double()), normalize(caps.centres[slot].double())
    for _ in range(rounds):
        middle = (near + far) / 2
        x = middle.cos() * inside + middle.sin() * away
        fires = ((x * weights).sum(-1) > caps.precision[slot]) & ((x * centres).sum(-1) > caps.support[slot])
        near, far = torch.where(fires[:, None], middle, near), torch.where(fires[:, None], far, middle)
    return torch.cat([angle.cos() * inside + angle.sin() * away for angle in (near, far)])


def as_views(points, n_views, generator):
    """Bundle points into inputs of several views, each in all of its float32 and a random scale."""
    n = len(points) // n_views * n_views
    order = torch.randperm(len(points), generator=generator)[:n]
    scale = 10 ** (2 * torch.rand(n, 1, generator=generator) - 1)
    return (points[order] * scale).float().view(-1, n_views, points.shape[1])


def sphere_search(old_caps, new_caps, count, generator, *, n_views=1, steps=30):
    """Compare the two heads on common points, on edges next to them, and on the edges of all caps.

    About ``33 count`` points for ``n_views = 1``.
    """
    n_old, total = len(old_caps.labels), Tally()
    common, first, second = common_points(new_caps, n_old, count, generator, steps=steps)
    points = [
        common.double(),
        edge_points(new_caps, first, generator, common),
        exit_points(new_caps, first, common, generator),
        exit_points(new_caps, second, common, generator),
    ]
    for batch in points:
        for views in {1, n_views}:
            total += compare(as_views(batch, views, generator), old_caps, new_caps)
    return total


def input_search(old, new, images, *, steps=20, lr=0.1):
    """Gradient ascent on the pixels, through all views and the backbone, into an old slot and a new one at once.

    Parameters
    ----------
    old, new : SlotModel
        Before and after the update.
    images : uint8 array of shape (example, height, width)
    steps, lr : int, float
        Ascent; ``lr`` is the length of the first step as a share of the image's own length.

    Returns
    -------
    Tally
        Of the images at the start, halfway and at the end, rounded to whole grey levels as any image is.
    """
    n_old, total = old.head.n_slots, Tally()
    caps = new.head.caps()
    x = new.preprocessing(images)
    for step in range(steps + 1):
        if step in {0, steps // 2, steps}:
            total += compare_models(old, new, (x * 255).round().clamp(0, 255).byte()[:, 0].numpy())
        if step == steps:
            break
        x.requires_grad_(True)
        inside = depth(new.featurize(new.views(x)), caps)
        best = inside.amax(1)
        old_label = caps.labels[best[:, :n_old].argmax(1)]
        foreign = caps.labels[None, n_old:] != old_label[:, None]
        rival = best[:, n_old:].masked_fill(~foreign, -9.0).amax(1)
        goal = torch.minimum(best[:, :n_old].amax(1), rival)
        (slope,) = torch.autograd.grad(goal.sum(), x)
        with torch.no_grad():
            length = x.flatten(1).norm(dim=1)[:, None, None, None]
            slope = slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            x = (x + lr * (1 - step / steps) * length * slope).clamp(0, 1)
    return total


def compare_models(old, new, images):
    """Whole answers of two models to the same raw images."""
    before, after = old.predict(images), new.predict(images)
    contested, caps = torch.zeros(0, dtype=torch.bool), new.head.caps()
    with torch.no_grad():
        for rows in new.blocks(len(images)):
            part_before = Prediction(**{name: value[rows] for name, value in vars(before).items()})
            found = contested_rows(new.features(images[rows]), part_before, caps, old.head.n_slots)
            contested = torch.cat([contested, torch.from_numpy(found)])
    edge = before.matched & (before.margins < 1e-6)
    counts = (before.matched, contested, edge, changed_rows(before, after))
    return Tally(len(images), *(int(mask.sum()) for mask in counts))
