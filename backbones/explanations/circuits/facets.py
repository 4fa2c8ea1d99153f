"""Whether a unit is excited by one thing or by several: its top examples in groups, beside those of one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from backbones.explanations.circuits.examples import Encoder, contrast
from backbones.explanations.circuits.nulls import Result, against

LEAST_SHARE: Final = 0.1
"""Share of the top examples that a group must have to be a facet."""

_STARTS: Final = 4
_STEPS: Final = 20
_DIMENSIONS: Final = 8
_FEWEST: Final = 24


@dataclass(frozen=True)
class Facets:
    """The top examples of a unit in two groups.

    Parameters
    ----------
    found : Result
        Share of the examples' variance that lies between the groups; null: examples drawn from one normal distribution
        of the same mean and covariance.
    top : int64 array of shape (example,)
        The top examples, the strongest first.
    groups : int64 array of shape (example,)
        0 or 1 for each; 0 is the larger group.
    shares : (float, float)
        Of the groups.
    """

    found: Result
    top: Int[np.ndarray, " example"]
    groups: Int[np.ndarray, " example"]
    shares: tuple[float, float]

    @property
    def is_several(self) -> bool:
        """Whether the groups are further apart than in 95 % of the null, and neither is rare."""
        return self.found.p_value <= 0.05 and min(self.shares) >= LEAST_SHARE


def facets(
    values: Float[Tensor, " sample"],
    patches: Float[Tensor, "sample ..."],
    *,
    encoder: Encoder = contrast,
    top: int = 64,
    permutations: int = 99,
    seed: int = 0,
) -> Facets:
    """Split the top examples of a unit into two groups, and ask whether one group would split as well.

    Parameters
    ----------
    values : float tensor of shape (sample,)
        What the unit says to each input.
    patches : float tensor of shape (sample, ...)
        What it looked at, as deviations from the mean input.
    encoder : callable, default `contrast`
        Features in which examples are grouped; they must owe nothing to the network.
    top : int, default 64
        Examples, at most (count); fewer where the unit is above 0 for fewer, and at least 24.
    permutations : int, default 99
        Draws of the null (count, >= 1).
    seed : int, default 0
        Of all that is drawn.

    Returns
    -------
    Facets

    Raises
    ------
    ValueError
        If there are fewer than 24 inputs, or the top examples are all alike.

    Notes
    -----
    Two means of the first 8 principal components of the examples' features, from 4 starts. A unit that is tuned to
    something continuous, as to an angle, has long groups and no gap: the null's covariance is as long.
    """
    order = values.argsort(descending=True, stable=True).cpu().numpy()
    active = int((values > 0).sum())
    chosen = order[: max(_FEWEST, min(top, active))]
    if len(chosen) < _FEWEST:
        raise ValueError(f"`values` must be those of {_FEWEST} or more inputs, got {len(chosen)}. Give more inputs.")
    features = encoder(patches[chosen.tolist()]).double().cpu().numpy()
    features -= features.mean(0)
    _, sizes, axes = np.linalg.svd(features, full_matrices=False)
    kept = min(_DIMENSIONS, int((sizes > 1e-9 * max(sizes[0], 1e-30)).sum()))
    if sizes[0] < 1e-9:
        raise ValueError("`patches` of the top examples must differ, got one. Encode them in features that differ.")
    points, spread = features @ axes[:kept].T, sizes[:kept] / np.sqrt(len(chosen))
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(permutations, *points.shape)) * spread
    shares, groupings = _two_means(np.concatenate([points[None], drawn]), generator)
    groups = groupings[0] if groupings[0].mean() <= 0.5 else 1 - groupings[0]
    rare = float(groups.mean())
    return Facets(against(float(shares[0]), shares[1:]), chosen, groups, (1 - rare, rare))


def _two_means(
    points: Float[np.ndarray, "draw example axis"], generator: np.random.Generator
) -> tuple[Float[np.ndarray, " draw"], Int[np.ndarray, "draw example"]]:
    """Share of the variance between two groups, the best of some starts; and the groups; for many sets at once."""
    centred = points - points.mean(1, keepdims=True)
    n = centred.shape[1]
    totals = np.square(centred).sum((1, 2))
    starts = np.stack([generator.choice(n, 2, replace=False) for _ in range(_STARTS)])
    means = centred[:, starts]  # (draw, start, group, axis)
    for step in range(_STEPS + 1):
        far = np.square(means).sum(3)[:, :, None] - 2 * np.einsum("dea,dsga->dseg", centred, means)
        groups = far.argmin(3)
        first = np.stack([groups == 0, groups == 1], 2).astype(np.float64)  # (draw, start, group, example)
        counts = first.sum(3, keepdims=True)
        updated = np.einsum("dsge,dea->dsga", first, centred) / np.maximum(counts, 1)
        if step < _STEPS and np.array_equal(updated, means):
            break
        means = updated
    between = (counts[..., 0] * np.square(means).sum(3)).sum(2) / totals[:, None]
    best = between.argmax(1)
    rows = np.arange(len(points))
    return between[rows, best], groups[rows, best]
