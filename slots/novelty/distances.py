"""Three or four distances of an input from what is remembered; each misses what another finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.features.few_rows import along_rows
from slots.head.similarities import normalize
from slots.kept import Kept
from slots.novelty.k_flats import Flats, nearest_flat
from slots.shapes import SlotVectors, ViewFeatures

_BLOCK_FLOATS = 1 << 24
_PREPARED = 1 << 23  # numbers of the prototypes of which what is computed is kept: 128 MB
_FULL_BASIS = 1024  # features up to which the metric keeps every direction
_LOW_BASIS = 512  # directions kept beyond


@dataclass(frozen=True)
class _Prepared:
    """Prototypes as `distances` compares inputs with them.

    Parameters
    ----------
    exact, single : float64 and float32 tensors of shape (slot, feature)
        Unit vectors.
    stretched : float tensor of shape (slot, direction)
        Along the metric's stretched basis.
    squares : float tensor of shape (slot,)
        Squared lengths of these.
    """

    exact: Tensor
    single: Tensor
    stretched: Tensor
    squares: Tensor

    @staticmethod
    def of(prototypes: SlotVectors, metric: NoveltyMetric) -> _Prepared:
        """Of prototypes on the metric's device."""
        exact = normalize(prototypes.double())
        single = exact.float()
        stretched = single @ metric.stretched_basis
        return _Prepared(exact, single, stretched, stretched.square().sum(-1))


@dataclass(frozen=True)
class NoveltyMetric:
    """The distances and their scales; what of a detector does not depend on the prototypes.

    Parameters
    ----------
    basis : float tensor of shape (feature, direction)
        Main directions of the residuals about the prototypes, orthonormal.
    inverse_scales : float tensor of shape (direction,)
        One over the standard deviation along each.
    residual_inverse_scale : float
        One over the standard deviation along all other directions together.
    median_log_norm : float
        Median of the logarithm of the feature norm.
    quantiles : tuple of tuples of ten floats
        Quantiles 0, 0.1, ..., 0.9 of each distance on reference data.
    mean_excess : tuple of floats
        Mean of what lies beyond the last quantile, less that quantile, of each distance.
    shares : tuple of floats
        Shares of the false alarms that the tests may spend.
    neighbours : int
        Prototypes whose mean angle is the first distance; no more than there are.
    flats : Flats, optional
        With them there is a fourth distance.
    """

    basis: Float[Tensor, "feature direction"]
    inverse_scales: Float[Tensor, " direction"]
    residual_inverse_scale: float
    median_log_norm: float
    quantiles: tuple[tuple[float, ...], ...] = ()
    mean_excess: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    neighbours: int = 1
    flats: Flats | None = None

    @cached_property
    def stretched_basis(self) -> Float[Tensor, "feature direction"]:
        """The basis, each direction times what a squared distance along it counts for (see `_whitened`)."""
        weight = (self.residual_inverse_scale**2 - self.inverse_scales**2).abs().sqrt()
        return self.basis * weight

    @cached_property
    def wide(self) -> tuple[Tensor, Tensor]:
        """Basis and inverse scales in float64."""
        return self.basis.double(), self.inverse_scales.double()

    @cached_property
    def _kept(self) -> Kept[_Prepared]:
        """What was computed of the prototypes asked last; none in a copy."""
        return Kept(most_numbers=_PREPARED)

    def prepared(self, prototypes: SlotVectors) -> _Prepared:
        """What the distances from these prototypes need of them, kept as long as they stay as they are."""
        return self._kept(prototypes, make=lambda: _Prepared.of(prototypes, self))

    def to(self, device: torch.device | str) -> NoveltyMetric:
        """The same on another device; itself where it lies there."""
        if self.basis.device == torch.device(device):
            return self
        flats = None if self.flats is None else self.flats.to(device)
        return replace(self, basis=self.basis.to(device), inverse_scales=self.inverse_scales.to(device), flats=flats)

    @staticmethod
    def of(residuals: Float[Tensor, "example feature"], norms: Tensor, *, shrinkage: float) -> NoveltyMetric:
        """The metric of unit features less their prototypes, and of the norms of the raw features.

        Parameters
        ----------
        residuals : float tensor of shape (example, feature)
            Unit features less the prototype nearest to each.
        norms : float tensor of shape (example,)
            Norms of the raw features, > 0.
        shrinkage : float
            Share of the mean variance added to the variance along each direction.
        """
        n, feature = residuals.shape
        wide = residuals.double()
        values, vectors = along_rows(wide) if 0 < 2 * n <= feature else torch.linalg.eigh(wide.T @ wide / max(1, n))
        there = len(values)  # along other directions nothing varies
        mean = float(values.clamp_min(0).mean()) * (there / feature) or 1.0
        kept = min(there, feature if feature <= _FULL_BASIS else _LOW_BASIS)
        left = (
            float(values[: there - kept].clamp_min(0).mean()) * ((there - kept) / (feature - kept))
            if kept < there
            else 0.0
        )
        median = float(norms.double().clamp_min(1e-12).log().median()) if n else 0.0
        return NoveltyMetric(
            # As it lies when it is loaded: the last bits of products depend on that.
            basis=vectors[:, there - kept :].float().contiguous(),
            inverse_scales=(values[there - kept :].clamp_min(0) + shrinkage * mean).rsqrt().float(),
            residual_inverse_scale=(left + shrinkage * mean) ** -0.5 if kept < feature else 0.0,
            median_log_norm=median,
        )


@dataclass(frozen=True)
class Distances:
    """Raw distances of a batch.

    Parameters
    ----------
    values : float64 tensor of shape (example, test)
        Mean angle to the nearest prototypes (radians); whitened distance to the nearest prototype; absolute difference
        of the logarithm of the norm from the usual; where there are flats, the distance to the nearest of them in units
        of its spread.
    nearest : int64 tensor of shape (example,)
        The prototype of smallest angle.
    """

    values: Float[Tensor, "example test"]
    nearest: Int[Tensor, " example"]

    def nearer(self, other: Distances) -> Distances:
        """The distances from these prototypes and others together, by a metric of one neighbour and without flats.

        Parameters
        ----------
        other : Distances
            Of the same inputs from the others, which have numbers of their own in ``nearest``. Of two as near, the
            first is named.
        """
        nearest = torch.where(other.values[:, 0] < self.values[:, 0], other.nearest, self.nearest)
        return Distances(torch.minimum(self.values, other.values), nearest)


def stack_distances(parts: list[Distances]) -> Distances:
    """The distances of consecutive blocks; no parts give none."""
    if not parts:
        return Distances(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long))
    return Distances(torch.cat([part.values for part in parts]), torch.cat([part.nearest for part in parts]))


@torch.no_grad()
def distances(features: ViewFeatures, prototypes: SlotVectors, metric: NoveltyMetric) -> Distances:
    """The distances of inputs; but for the norm's, each by the views that make it smallest.

    So none of them rises when prototypes are added, and p-values of an older calibration stay valid.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features.
    prototypes : float tensor of shape (slot, feature)
        Unit vectors; at least as many as the metric has neighbours.
    metric : NoveltyMetric
        Scales of the distances; with flats there is a fourth.

    Returns
    -------
    Distances
        float32 finds the smallest, float64 says how small it is.
    """
    n, views, feature = features.shape
    known, flats = metric.prepared(prototypes), metric.flats
    tests = 3 if flats is None else 4
    values = torch.zeros(n, tests, dtype=torch.float64, device=features.device)
    nearest = torch.zeros(n, dtype=torch.long, device=features.device)
    flat_width = 0 if flats is None else flats.directions[:, 0].numel()
    step = max(1, _BLOCK_FLOATS // max(1, views * max(len(prototypes), feature, flat_width)))
    for start in range(0, n, step):
        block = features[start : start + step]
        rows = slice(start, start + len(block))
        unit = normalize(block.float())
        cosine = unit @ known.single.T
        exact = normalize(block.double()) if views == 1 else None  # of many views only those that are nearest
        values[rows, 0], nearest[rows] = _mean_angle(cosine, block, exact, known.exact, metric.neighbours)
        slot, here = _closest(_whitened(unit, known, cosine, metric), block, exact)
        values[rows, 1] = _whitened_pair(here, known.exact[slot], metric)
        values[rows, 2] = (block[:, 0].double().norm(dim=1).clamp_min(1e-12).log() - metric.median_log_norm).abs()
        if flats is not None:
            values[rows, 3] = nearest_flat(normalize(block.double()), flats)[0]
    return Distances(values, nearest)


def _mean_angle(
    cosine: Tensor, block: Tensor, exact: Tensor | None, known: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Mean angle to the nearest prototypes, each by its best view, and the nearest one."""
    best, view = cosine.max(1)
    slots = best.topk(min(neighbours, best.shape[1]), dim=1).indices
    rows = torch.arange(len(block), device=block.device)
    total = torch.zeros(len(block), dtype=torch.float64, device=block.device)
    for slot in slots.T:
        here = normalize(block[rows, view[rows, slot]].double()) if exact is None else exact[:, 0]
        total += 2 * torch.asin(((here - known[slot]).norm(dim=1) / 2).clamp(max=1))
    return total / slots.shape[1], slots[:, 0]


def _closest(scores: Float[Tensor, "example view slot"], block: Tensor, exact: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each example the slot of smallest score, and the unit features of the view that has it, in float64."""
    flat = scores.flatten(1).argmin(1)
    if exact is not None:
        return flat, exact[:, 0]
    view = flat // scores.shape[2]
    here = normalize(block[torch.arange(len(block), device=block.device), view].double())
    return flat % scores.shape[2], here


def _whitened(unit: Tensor, known: _Prepared, cosine: Tensor, metric: NoveltyMetric) -> Tensor:
    """Squared whitened distances in float32, shape (example, view, slot).

    With a residual scale the kept directions are those of largest variance, so each counts for less than the rest: what
    they hold is taken off the plain squared distance.
    """
    residual = metric.residual_inverse_scale
    a = unit @ metric.stretched_basis
    squared = a.square().sum(-1, keepdim=True) + known.squares - 2 * (a @ known.stretched.T)
    return residual**2 * (2 - 2 * cosine) - squared if residual else squared


def _whitened_pair(here: Tensor, there: Tensor, metric: NoveltyMetric) -> Tensor:
    """Whitened distance of rows to rows, in float64."""
    gap = here - there
    basis, scales = metric.wide
    along = gap @ basis
    squared, residual = (along * scales).square().sum(1), metric.residual_inverse_scale
    if residual:
        squared = squared + residual**2 * (gap.square().sum(1) - along.square().sum(1)).clamp_min(0)
    return squared.sqrt()
