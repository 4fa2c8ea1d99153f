"""What labels add to novelty: measures of class fit beside the angles, weighted by what finds classes left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.clustering.kmeans import spherical_means
from slots.head.similarities import normalize
from slots.novelty.classes_left_out import folds, foreign_kinds, halfway
from slots.novelty.gaussians import ClassGaussians, fit_gaussians
from slots.novelty.left_out.sizes import alike, known_of, thinned, uneven
from slots.novelty.weighting import Values, WeightedScore, fit_score
from slots.progress import silent
from slots.shapes import Features, Ids, SlotVectors

MEASURES = ("angle", "angle", "size", "class", "pattern", "class")
"""The reason that each measure stands for: angle to the nearest prototype, mean angle to the five nearest, size, then
those of `slots.novelty.gaussians`."""

_NEIGHBOURS = 5
_PASSES = 5  # of k-means

_BLOCK_FLOATS = 1 << 24


@dataclass(frozen=True)
class FamiliarClasses:
    """What is remembered of labelled familiar features.

    Parameters
    ----------
    prototypes : float tensor of shape (prototype, feature)
        Unit vectors.
    gaussians : ClassGaussians
        The classes.
    median_log_norm : float
        Median of the logarithm of the feature norm.
    """

    prototypes: SlotVectors
    gaussians: ClassGaussians
    median_log_norm: float

    @torch.no_grad()
    def measures(self, features: Features) -> tuple[Float[Tensor, "example measure"], Tensor]:
        """The measures named by `MEASURES`, float64, and the nearest prototype of each input.

        Parameters
        ----------
        features : float tensor of shape (example, feature)
            Raw features.
        """
        step = max(1, _BLOCK_FLOATS // max(len(self.prototypes), features.shape[1]))
        found, nearest = [], []
        for block in features.split(step):
            unit = normalize(block.double())
            near = (unit.float() @ self.prototypes.T).topk(min(_NEIGHBOURS, len(self.prototypes)), dim=1).indices
            gaps = torch.stack([(unit - self.prototypes[slot].double()).norm(dim=1) for slot in near.T], 1)
            angles = 2 * torch.asin((gaps / 2).clamp(max=1))
            size = (block.double().norm(dim=1).clamp_min(1e-12).log() - self.median_log_norm).abs()
            own = torch.stack([angles[:, 0], angles.mean(1), size], 1)
            found.append(torch.cat([own, self.gaussians.evidence(block)], 1))
            nearest.append(near[:, 0])
        if not found:
            return torch.zeros(0, len(MEASURES), dtype=torch.float64), torch.zeros(0, dtype=torch.long)
        return torch.cat(found), torch.cat(nearest)


def fit_classes(features: Features, labels: Ids, *, n_prototypes: int, seed: int) -> FamiliarClasses:
    """Remember prototypes and class Gaussians.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Raw features, at least one row.
    labels : int64 array of shape (example,)
        Any ids.
    n_prototypes : int
        Prototypes, at most; where the rows are no more, they are the prototypes.
    seed : int
        Of k-means.

    Returns
    -------
    FamiliarClasses
    """
    unit = normalize(features)
    rows = unit[(unit != 0).any(1)]
    if len(rows) == 0:
        rows = torch.eye(1, unit.shape[1])
    if len(rows) > n_prototypes:
        rows = spherical_means(rows, n_prototypes, passes=_PASSES, seed=seed, progress=silent)
    known = torch.from_numpy(np.unique(labels, return_inverse=True)[1].astype(np.int64))
    norms = features.double().norm(dim=1).clamp_min(1e-12)
    return FamiliarClasses(rows, fit_gaussians(features, known), float(norms.log().median()))


def fit_weights(
    features: Features, labels: Ids, *, n_prototypes: int, seed: int
) -> tuple[WeightedScore, npt.NDArray[np.float64]]:
    """Tails and weights of the measures, from examples that had no part in making them.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Raw features, at least one row a fold.
    labels : int64 array of shape (example,)
        Any ids.
    n_prototypes : int
        As for `fit_classes`.
    seed : int
        Of the folds and of k-means.

    Returns
    -------
    score : WeightedScore
    alike : float64 array of shape (some,)
        Scores of familiar examples where every class comes as often as another (`slots.novelty.left_out.sizes`); none
        where all have about as many examples.

    Notes
    -----
    In each of four folds a quarter of the classes and a quarter of the examples of the others are left out. Examples
    of the others are familiar and set the tails; those of the classes left out are new, as far as the fold knows, and
    so are points halfway between two familiar examples of different classes, which count a quarter. The weights tell
    new from familiar (`slots.novelty.weighting`). With one class there is nothing to leave out, and all weights are
    equal.
    """
    familiar, new, between, known = [], [], [], []
    rng = np.random.default_rng(seed)
    for learned, kept, left in folds(labels, rng):
        made = fit_classes(features[learned], labels[learned], n_prototypes=n_prototypes, seed=seed)
        familiar.append(_values(made, features[kept]))
        new.append(_values(made, features[left]))
        between.append(_values(made, halfway(features[kept], labels[kept], rng)))
        known.append(known_of(labels, learned, kept))
    score = fit_score(np.concatenate(familiar), foreign_kinds(new, between))
    sizes = np.unique(labels, return_counts=True)[1]
    if not uneven(sizes):
        return score, np.zeros(0)
    for learned, kept in thinned(labels, rng):
        made = fit_classes(features[learned], labels[learned], n_prototypes=n_prototypes, seed=seed)
        familiar.append(_values(made, features[kept]))
        known.append(known_of(labels, learned, kept))
    return score, alike(score(np.concatenate(familiar))[0], np.concatenate(known), sizes)


def _values(made: FamiliarClasses, features: Features) -> Values:
    found: Values = made.measures(features)[0].numpy()
    return found
