"""What is attacked beside ours: an undefended linear layer, and prototypes that answer by the nearest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from protocols.harness.encoders import Features, Labels

Scores = Callable[[Tensor], Tensor]
"""Feature rows to class scores (example, class), differentiable; the largest answers."""


@dataclass(frozen=True)
class Prototypes:
    """A nearest-prototype classifier: labelled points, of which the nearest answers.

    Parameters
    ----------
    rows : float tensor of shape (prototype, feature)
        Training rows or centres of them.
    labels : int64 tensor of shape (prototype,)
        What each prototype answers.
    n_classes : int
        Columns of the scores (count, >= 2).
    """

    rows: Tensor
    labels: Tensor
    n_classes: int

    def __call__(self, features: Tensor) -> Tensor:
        """Minus the distance to the nearest prototype of each class, shape (example, class).

        The largest is the answer of nearest-neighbour classification, and its gradient points to and from real
        prototypes: what an attack follows is what decides.
        """
        with torch.no_grad():
            gap = torch.cdist(features, self.rows)
            nearest = [self._of_class(gap, label) for label in range(self.n_classes)]
        found = [(features - self.rows[place]).norm(dim=1) for place in nearest]
        return -torch.stack(found, dim=1)

    def _of_class(self, gap: Tensor, label: int) -> Tensor:
        """Of each row the nearest prototype of a class."""
        return gap.masked_fill(self.labels != label, torch.inf).argmin(1)


def all_neighbours(features: Features, labels: Labels, *, most: int, seed: int) -> Prototypes:
    """1-NN: every example is a prototype, or some drawn by chance where there are more than ``most``."""
    keep = np.random.default_rng(seed).permutation(len(features))[:most]
    return Prototypes(torch.from_numpy(features[keep]), torch.from_numpy(labels[keep]), int(labels.max()) + 1)


def class_k_means(features: Features, labels: Labels, *, count: int, seed: int) -> Prototypes:
    """k-means in each class, ``count`` prototypes in all."""
    from sklearn.cluster import MiniBatchKMeans

    classes = np.unique(labels)
    rows, owners = [], []
    for label in classes:
        own = features[labels == label]
        each = max(1, min(count // len(classes), len(own)))
        found = MiniBatchKMeans(each, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(own)
        rows.append(np.asarray(found.cluster_centers_, np.float32))
        owners.append(np.full(each, label))
    labels_of = torch.from_numpy(np.concatenate(owners).astype(np.int64))
    return Prototypes(torch.from_numpy(np.concatenate(rows)), labels_of, int(classes.max()) + 1)


def max_softmax(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """Minus the largest softmax probability (Hendrycks and Gimpel 2017), differentiable."""
    return lambda features: -linear(features).softmax(1).amax(1)


def energy(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """Minus the logarithm of the summed exponentials of the logits (Liu et al. 2020), differentiable."""
    return lambda features: -linear(features).logsumexp(1)


def nearest_distance(prototypes: Prototypes) -> Callable[[Tensor], Tensor]:
    """Angle-free distance to the nearest prototype of any class, differentiable."""
    return lambda features: -prototypes(features).amax(1)
