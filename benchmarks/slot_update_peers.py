"""Nearest-prototype head and the other ways to choose what to label, for `slot_update.py`; literal and short.

scikit-activeml has k-center and ProbCover too; its ProbCover holds all pairwise distances in float64 and copies a part
of them at each query, which is far beyond minutes at 20,000 examples, so both are written here.
"""

from types import SimpleNamespace

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from slots.cover import greedy_set_cover_packed
from slots.coverage import CoverBlock, pack_bits

PROTOTYPES = 1000
RADII = (0.5, 0.6, 0.7, 0.8, 0.9)  # distance of unit rows


class Prototypes:
    """k-means in each class; the nearest by cosine answers; labelled examples join as they are."""

    def __init__(self, split, seed):
        self.base, self.stream, self.test = (unit(it) for it in (split.x, split.stream, split.test))
        self.stream_y, centres, labels = split.stream_y, [], []
        classes = np.unique(split.y)
        for label in classes:
            rows = self.base[split.y == label].numpy()
            count = PROTOTYPES // len(classes)
            found = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=seed).fit(rows)
            centres.append(torch.from_numpy(found.cluster_centers_))
            labels.append(np.full(count, label))
        self.centres, self.labels = unit(torch.cat(centres)), np.concatenate(labels)
        self.nearest = [(rows @ self.centres.T).max(1) for rows in (self.stream, self.test)]

    def answer(self, asked):
        """Labels of the test images once the asked rows of the stream have joined."""
        values, places = self.nearest[1]
        labels = self.labels[places.numpy()]
        if len(asked):
            added, which = (self.test @ self.stream[torch.as_tensor(asked)].T).max(1)
            labels = np.where((added > values).numpy(), self.stream_y[asked][which.numpy()], labels)
        return SimpleNamespace(labels=labels)


def unit(images):
    """Rows of unit length."""
    rows = torch.as_tensor(images).flatten(1).float()
    return torch.nn.functional.normalize(rows)


def peer_choices(head, split, budget, seed):
    """Rows of the stream in the order in which each way would ask for them."""
    rng = np.random.default_rng(seed)
    chosen = {
        "random": rng.permutation(len(head.stream))[:budget],
        "margin": by_margin(head)[:budget],
        "k-center": k_center(head, budget),
    }
    pure = pure_radius(head, len(np.unique(split.stream_y)), seed)
    names = ["ProbCover", *(f"ProbCover, radius {radius:.2f}" for radius in RADII)]
    return chosen | dict(zip(names, prob_cover(head, [pure, *RADII], budget), strict=True))


def by_margin(head):
    """Least difference between the best and the second class first."""
    scores = head.stream @ head.centres.T
    best = torch.stack([scores[:, torch.from_numpy(head.labels == c)].amax(1) for c in np.unique(head.labels)], 1)
    top = best.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).argsort(stable=True).numpy()


def k_center(head, budget):
    """The example farthest from all prototypes and choices so far, again and again."""
    nearest, picked = head.nearest[0].values.clone(), []
    for _ in range(budget):
        picked.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, head.stream @ head.stream[picked[-1]])
    return np.array(picked)


def pure_radius(head, n_classes, seed):
    """Largest radius at which 95 % of the balls hold one k-means cluster only."""
    clusters = MiniBatchKMeans(n_classes, n_init=3, batch_size=4096, random_state=seed).fit_predict(head.stream.numpy())
    marks, found = torch.from_numpy(clusters), []
    for rows, mine in zip(head.stream.split(2000), marks.split(2000), strict=True):
        found.append((rows @ head.stream.T).masked_fill(mine[:, None] == marks, -1).amax(1))
    nearest_other = (2 - 2 * torch.cat(found)).clamp_min(0).sqrt()
    return float(nearest_other.quantile(0.05))


def prob_cover(head, radii, budget):
    """Greedy maximum coverage of what no prototype has within the radius, for each radius."""
    limits = [1 - radius**2 / 2 for radius in radii]
    open_ = [(head.nearest[0].values < limit).nonzero()[:, 0] for limit in limits]
    words = [[] for _ in radii]
    for rows in head.stream.split(2000):
        scores = rows @ head.stream.T
        for place, limit in enumerate(limits):
            words[place].append(pack_bits(scores[:, open_[place]] >= limit))
    return [_greedy(head, torch.cat(parts), len(columns), budget) for parts, columns in zip(words, open_, strict=True)]


def _greedy(head, words, n_open, budget):
    """Picks of a cover; when everything is covered the rest at random, as there is no reason for any."""
    n = len(head.stream)
    picks = np.zeros(0, np.int64)
    if n_open:
        block = CoverBlock(0, torch.arange(n), torch.arange(n_open), words)
        picks = greedy_set_cover_packed([block], max_slots=budget).numpy()
    rest = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(n), picks))
    return np.concatenate([picks, rest[: budget - len(picks)]])
