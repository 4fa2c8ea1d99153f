"""Other ways to choose what to label, and the head of prototypes that they are judged by.

scikit-activeml has k-center and ProbCover too; its ProbCover holds all pairwise distances in float64 and copies a part
of them at each query, which takes hours at 20,000 examples; so both are written here, and checked against slow ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.cover.bits import CoverBlock, pack_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.head.similarities import normalize

Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
PROTOTYPES = 1000

STRETCHES = (0.5, 0.75, 1.25, 1.5, 2.0)
"""Radii tried beside the paper's, as multiples of it."""

_BLOCK = 2000


class Prototypes:
    """k-means in each class; the nearest by cosine answers; each labelled example joins as it is.

    Parameters
    ----------
    base : float array of shape (example, feature)
        What the prototypes are made of, scaled to unit length.
    y : int64 array of shape (example,)
        Known labels of the base.
    stream : float array of shape (new example, feature)
        Where examples are asked from.
    seed : int
        Of k-means.
    count : int, default 1000
        Prototypes of all classes together; a class with fewer examples than its share keeps them all.
    """

    def __init__(self, base: Features, y: Labels, stream: Features, seed: int, *, count: int = PROTOTYPES) -> None:
        from sklearn.cluster import MiniBatchKMeans

        unit = _unit(base)
        self.stream = _unit(stream)
        classes = np.unique(y)
        centres, labels = [], []
        for label in classes:
            rows = unit[torch.from_numpy(y == label)]
            share = count // len(classes)
            if len(rows) > share:
                found = MiniBatchKMeans(share, n_init=1, batch_size=4096, random_state=seed).fit(rows.numpy())
                rows = normalize(torch.from_numpy(np.asarray(found.cluster_centers_, np.float32)))
            centres.append(rows)
            labels.append(np.full(len(rows), label, np.int64))
        self.centres, self.labels = torch.cat(centres), np.concatenate(labels)
        self.nearest = self.similarity(self.stream)
        """Similarity of each stream row to its nearest prototype."""

    def similarity(self, unit: Tensor) -> Tensor:
        """Largest cosine to a prototype, shape (example,)."""
        return (unit @ self.centres.T).amax(1)

    def answer(self, x: Features, asked: Rows, told: Labels) -> Labels:
        """Labels of rows once the asked rows of the stream have joined with what was told."""
        unit = _unit(x)
        centres, labels = torch.cat([self.centres, self.stream[asked]]), np.concatenate([self.labels, told])
        parts = [(rows @ centres.T).argmax(1) for rows in unit.split(_BLOCK)]
        found: Labels = labels[torch.cat(parts).numpy()]
        return found

    def class_scores(self, asked: Rows, told: Labels) -> Tensor:
        """Best cosine of each stream row to each class, shape (new example, class)."""
        centres, labels = torch.cat([self.centres, self.stream[asked]]), np.concatenate([self.labels, told])
        scores = [self.stream @ centres[torch.from_numpy(labels == label)].T for label in np.unique(labels)]
        return torch.stack([it.amax(1) for it in scores], 1)


def by_margin(head: Prototypes, budget: int) -> Rows:
    """Least difference between the best and the second class first, all at once (Scheffer et al. 2001)."""
    return _closest(head.class_scores(np.zeros(0, np.int64), np.zeros(0, np.int64)), np.zeros(0, np.int64), budget)


def by_margin_in_rounds(head: Prototypes, y: Labels, budget: int, rounds: Sequence[int]) -> Rows:
    """The same, where the labels of each round have joined before the next is chosen.

    Parameters
    ----------
    head : Prototypes
        Left as it is; labels join for the choice alone.
    y : int64 array of shape (new example,)
        What is told when asked.
    budget : int
        Questions altogether (count, >= 0).
    rounds : sequence of int
        Questions of each round; the last is repeated.
    """
    asked = np.zeros(0, np.int64)
    for place in range(budget):
        if len(asked) >= budget:
            break
        size = min(rounds[min(place, len(rounds) - 1)], budget - len(asked))
        asked = np.concatenate([asked, _closest(head.class_scores(asked, y[asked]), asked, size)])
    return asked


def k_center(head: Prototypes, budget: int) -> Rows:
    """The example farthest from all prototypes and choices so far, again and again (Sener and Savarese 2018)."""
    nearest, picked = head.nearest.clone(), []
    for _ in range(budget):
        picked.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, head.stream @ head.stream[picked[-1]])
        nearest[picked[-1]] = 2.0
    return np.array(picked, np.int64)


def pure_radius(head: Prototypes, n_classes: int, seed: int) -> float:
    """ProbCover's rule: the largest radius at which 95 % of the balls hold one k-means cluster only.

    Parameters
    ----------
    head : Prototypes
        Its stream is what is clustered.
    n_classes : int
        Clusters, as many as classes are expected.
    seed : int
        Of k-means.

    Returns
    -------
    float
        Euclidean distance of unit rows.
    """
    from sklearn.cluster import MiniBatchKMeans

    clusters = MiniBatchKMeans(n_classes, n_init=3, batch_size=4096, random_state=seed).fit_predict(head.stream.numpy())
    marks, found = torch.from_numpy(clusters), []
    for rows, mine in zip(head.stream.split(_BLOCK), marks.split(_BLOCK), strict=True):
        found.append((rows @ head.stream.T).masked_fill(mine[:, None] == marks, -1).amax(1))
    nearest_other = (2 - 2 * torch.cat(found)).clamp_min(0).sqrt()
    return float(nearest_other.quantile(0.05))


def prob_cover(head: Prototypes, radii: Sequence[float], budget: int) -> list[Rows]:
    """Greedy maximum coverage of what no prototype has within the radius, for each radius (Yehuda et al. 2022).

    Parameters
    ----------
    head : Prototypes
        Its prototypes cover first; its stream is asked from.
    radii : sequence of float
        Euclidean distances of unit rows, as `pure_radius` gives them (> 0).
    budget : int
        Questions at most (count, >= 0).

    Returns
    -------
    list of int64 arrays of shape (budget,)
        When everything is covered the rest at random, as there is no reason for any.
    """
    limits = [1 - radius**2 / 2 for radius in radii]
    uncovered = [(head.nearest < limit).nonzero()[:, 0] for limit in limits]
    words: list[list[Tensor]] = [[] for _ in radii]
    for rows in head.stream.split(_BLOCK):
        scores = rows @ head.stream.T
        for place, limit in enumerate(limits):
            words[place].append(pack_bits(scores[:, uncovered[place]] >= limit))
    return [_greedy(torch.cat(parts), len(columns), budget) for parts, columns in zip(words, uncovered, strict=True)]


def _greedy(words: Tensor, n_uncovered: int, budget: int) -> Rows:
    n = len(words)
    picks = np.zeros(0, np.int64)
    if n_uncovered:
        block = CoverBlock(0, torch.arange(n), torch.arange(n_uncovered), words)
        picks = greedy_set_cover_packed([block], max_slots=budget).numpy()
    rest = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(n), picks))
    return np.concatenate([picks, rest[: budget - len(picks)]])


def _closest(scores: Tensor, asked: Rows, count: int) -> Rows:
    """Rows with the smallest lead, without those that were asked."""
    top = scores.topk(min(2, scores.shape[1]), dim=1).values
    lead = top[:, 0] - top[:, -1]
    lead[torch.from_numpy(asked)] = torch.inf
    return lead.argsort(stable=True)[:count].numpy()


def _unit(x: Features) -> Tensor:
    return normalize(torch.from_numpy(np.ascontiguousarray(x)).float())
