"""Novelty: how far an input lies from what is remembered, with a false-alarm rate that is held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from slots.conformal import check_rate, p_values
from slots.errors import DataError, UsageError
from slots.matching import normalize
from slots.shapes import SlotVectors, ViewFeatures

REASONS = ("angle", "pattern", "size")
"""The three tests: far from every prototype; near one, but off in directions in which nothing ever varied; and a
feature vector longer or shorter than any."""

SHARES = (0.6, 0.3, 0.1)
"""Shares of the false alarms that the three tests may spend where the prototypes are a model's slots."""

_KNOTS = np.linspace(0.0, 0.9, 10)
_BLOCK_FLOATS = 1 << 24
_FULL_BASIS = 1024  # features up to which the metric keeps every direction
_LOW_BASIS = 512  # directions kept beyond


@dataclass(frozen=True)
class NoveltyMetric:
    """The three distances and their scales; what of a detector does not depend on the prototypes.

    Parameters
    ----------
    basis : float tensor of shape (feature, direction)
        Main directions of the residuals about the prototypes, orthonormal.
    stretch : float tensor of shape (direction,)
        One over the standard deviation along each.
    rest : float
        One over the standard deviation along all other directions together.
    middle : float
        Median of the logarithm of the feature norm.
    knots : tuple of three tuples of ten floats
        Quantiles 0, 0.1, ..., 0.9 of each distance on reference data.
    excess : tuple of three floats
        Mean of what lies beyond the last knot, less that knot.
    shares : tuple of three floats
        Shares of the false alarms that the tests may spend.
    """

    basis: Float[Tensor, "feature direction"]
    stretch: Float[Tensor, " direction"]
    rest: float
    middle: float
    knots: tuple[tuple[float, ...], ...] = ()
    excess: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def to(self, device: torch.device | str) -> NoveltyMetric:
        """The same on another device."""
        return replace(self, basis=self.basis.to(device), stretch=self.stretch.to(device))

    @staticmethod
    def of(residuals: Float[Tensor, "example feature"], norms: Tensor, *, shrinkage: float) -> NoveltyMetric:
        """The metric of unit features less their prototypes, and of the norms of the raw features.

        Parameters
        ----------
        residuals : float tensor of shape (example, feature)
        norms : float tensor of shape (example,)
        shrinkage : float
            Share of the mean variance added to the variance along each direction.
        """
        n, feature = residuals.shape
        wide = residuals.double()
        covariance = wide.T @ wide / max(1, n)
        values, vectors = torch.linalg.eigh(covariance)
        mean = float(values.clamp_min(0).mean()) or 1.0
        kept = feature if feature <= _FULL_BASIS else _LOW_BASIS
        rest = float(values[: feature - kept].clamp_min(0).mean()) if kept < feature else 0.0
        middle = float(norms.double().clamp_min(1e-12).log().median()) if n else 0.0
        return NoveltyMetric(
            basis=vectors[:, feature - kept :].float(),
            stretch=(values[feature - kept :].clamp_min(0) + shrinkage * mean).rsqrt().float(),
            rest=(rest + shrinkage * mean) ** -0.5 if kept < feature else 0.0,
            middle=middle,
        )


@dataclass(frozen=True)
class Distances:
    """Raw distances of a batch.

    Parameters
    ----------
    values : float64 tensor of shape (example, 3)
        Angle to the nearest prototype (radians); whitened distance to the nearest prototype; absolute difference of
        the logarithm of the norm from the usual.
    nearest : int64 tensor of shape (example,)
        The prototype of smallest angle.
    """

    values: Float[Tensor, "example 3"]
    nearest: Int[Tensor, " example"]


@torch.no_grad()
def distances(features: ViewFeatures, prototypes: SlotVectors, metric: NoveltyMetric) -> Distances:
    """The three distances of inputs; each of the first two by the view and the prototype that give the smallest.

    So both can only fall when prototypes are added, and p-values of an older calibration stay valid.

    Parameters
    ----------
    features : float tensor of shape (example, view, feature)
        Raw features.
    prototypes : float tensor of shape (slot, feature)
        Unit vectors; at least one.
    metric : NoveltyMetric

    Returns
    -------
    Distances
        float32 finds the smallest, float64 says how small it is.
    """
    n, views, feature = features.shape
    known = normalize(prototypes.double())
    values = torch.zeros(n, 3, dtype=torch.float64, device=features.device)
    nearest = torch.zeros(n, dtype=torch.long, device=features.device)
    step = max(1, _BLOCK_FLOATS // max(1, views * max(len(known), feature)))
    for start in range(0, n, step):
        block = features[start : start + step]
        rows = slice(start, start + len(block))
        unit = normalize(block.float())
        cosine = unit @ known.float().T
        slot, here = _closest(-cosine, block)
        chord = (here - known[slot]).norm(dim=1)
        values[rows, 0], nearest[rows] = 2 * torch.asin((chord / 2).clamp(max=1)), slot
        slot, here = _closest(_whitened(unit, known.float(), cosine, metric), block)
        values[rows, 1] = _whitened_pair(here, known[slot], metric)
        values[rows, 2] = (block[:, 0].double().norm(dim=1).clamp_min(1e-12).log() - metric.middle).abs()
    return Distances(values, nearest)


def _closest(scores: Float[Tensor, "example view slot"], block: Tensor) -> tuple[Tensor, Tensor]:
    """Of each example the slot of smallest score, and the unit features of the view that has it, in float64."""
    flat = scores.flatten(1).argmin(1)
    view = flat // scores.shape[2]
    here = normalize(block[torch.arange(len(block), device=block.device), view].double())
    return flat % scores.shape[2], here


def _whitened(unit: Tensor, known: Tensor, cosine: Tensor, metric: NoveltyMetric) -> Tensor:
    """Squared whitened distances in float32, shape (example, view, slot).

    With a rest the kept directions are those of largest variance, so each counts for less than the rest: what they
    hold is taken off the plain squared distance.
    """
    weight = (metric.rest**2 - metric.stretch**2).abs().sqrt()
    a, b = unit @ (metric.basis * weight), known @ (metric.basis * weight)
    squared = a.square().sum(-1, keepdim=True) + b.square().sum(-1) - 2 * (a @ b.T)
    return metric.rest**2 * (2 - 2 * cosine) - squared if metric.rest else squared


def _whitened_pair(here: Tensor, there: Tensor, metric: NoveltyMetric) -> Tensor:
    """Whitened distance of rows to rows, in float64."""
    gap = here - there
    along = gap @ metric.basis.double()
    squared = (along * metric.stretch.double()).square().sum(1)
    if metric.rest:
        squared = squared + metric.rest**2 * (gap.square().sum(1) - along.square().sum(1)).clamp_min(0)
    return squared.sqrt()


@dataclass(frozen=True)
class Novelty:
    """How novel a batch of inputs is; all arrays have shape (example,).

    Parameters
    ----------
    scores : float64 array
        Higher = more novel: about minus the logarithm of the chance of such an input among familiar ones.
    p_values : float64 array
        In (0, 1]; valid for inputs exchangeable with the calibration data.
    novel : bool array
        ``p_values <= false_alarm_rate``.
    nearest : int64 array
        Prototype of smallest angle; for a model the slot.
    reasons : array of str
        Which of `REASONS` gave the score.
    """

    scores: npt.NDArray[np.float64]
    p_values: npt.NDArray[np.float64]
    novel: npt.NDArray[np.bool_]
    nearest: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.scores)


class NoveltyDetector:
    """Tell foreign inputs from familiar ones, at a false-alarm rate that the user chooses and that is held.

    Parameters
    ----------
    n_prototypes : int, default 500
        Directions remembered, from k-means of the training features (count, >= 1).
    false_alarm_rate : float in (0, 1), default 0.05
        Largest share of familiar inputs that `is_novel` may flag.
    shares : three floats >= 0 with sum 1, default (0.45, 0.5, 0.05)
        Shares of the false alarms spent on the angle, the pattern, and the size (norm) of the features, which cosine
        similarity throws away. More for the angle finds classes that resemble known ones, more for the pattern finds
        what is wholly foreign.
    shrinkage : float, default 0.05
        Share of the mean variance added along each direction of the metric.
    seed : int, default 0

    Attributes
    ----------
    prototypes : float tensor of shape (prototype, feature)
    metric : NoveltyMetric
    calibration : float64 array of shape (calibration example,)
        Scores of held-out familiar examples, ascending.

    Notes
    -----
    Three distances: the angle to the nearest prototype; the Mahalanobis distance of the unit features to the nearest
    prototype under the pooled covariance within prototypes (Lee et al. 2018 use class means, here each prototype is
    one); and the logarithm of the norm. Each of the first two misses what the other finds (`docs/novelty.md`).

    The score is the largest of ``log(share / tail)`` over the tests, with the tail of each distance taken from
    reference data: Bonferroni's rule with weights. A maximum is one score, so one split-conformal calibration
    (`slots.conformal`) covers all three tests, whatever the tails are taken to be.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> familiar = rng.normal([[5, 0, 0]], 0.3, (400, 3)).astype(np.float32)
    >>> detector = NoveltyDetector(n_prototypes=4).fit(familiar)
    >>> detector.is_novel(np.float32([[5, 0.1, 0], [0, 5, 0], [50, 0, 0]]))
    array([False,  True,  True])
    """

    prototypes: Tensor
    metric: NoveltyMetric
    calibration: npt.NDArray[np.float64]

    def __init__(
        self,
        n_prototypes: int = 500,
        *,
        false_alarm_rate: float = 0.05,
        shares: tuple[float, float, float] = (0.45, 0.5, 0.05),
        shrinkage: float = 0.05,
        seed: int = 0,
    ) -> None:
        if n_prototypes < 1:
            raise UsageError(f"`n_prototypes` must be >= 1, got {n_prototypes}. Some hundred are usual.")
        if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise UsageError(f"`shares` must be three numbers >= 0 with sum 1, got {shares}. Try (0.45, 0.5, 0.05).")
        if shrinkage <= 0:
            raise UsageError(f"`shrinkage` must be > 0, got {shrinkage}. Try 0.05.")
        check_rate(false_alarm_rate, 10**9)
        self.n_prototypes, self.false_alarm_rate = n_prototypes, false_alarm_rate
        self.shares, self.shrinkage, self.seed = shares, shrinkage, seed
        self.calibration = np.zeros(0)

    def fit(self, x: npt.ArrayLike | Tensor, y: object = None) -> NoveltyDetector:  # noqa: ARG002  # the interface's
        """Learn from familiar features; a part of them is kept aside for scales and calibration.

        Parameters
        ----------
        x : float array of shape (example, feature)
            At least 10 rows. Seven tenths place the prototypes, one tenth sets the scales, two tenths calibrate.
        y : ignored
            For the interface's sake.

        Returns
        -------
        NoveltyDetector
            This one.

        Raises
        ------
        DataError
            If ``x`` has another form, too few rows, or numbers that are not finite.
        """
        features = _features(x)
        if len(features) < 10:
            raise DataError(f"`x` must have at least 10 rows, got {len(features)}. Give more familiar examples.")
        order = np.random.default_rng(self.seed).permutation(len(features))
        placing, scaling, calibrating = np.split(order, [int(0.7 * len(order)), int(0.8 * len(order))])
        unit = normalize(features[torch.from_numpy(placing)])
        self.prototypes = _prototypes(unit, self.n_prototypes, self.seed)
        nearest = torch.cat([(part @ self.prototypes.T).argmax(1) for part in unit.split(4096)])
        norms = features[torch.from_numpy(placing)].double().norm(dim=1)
        metric = NoveltyMetric.of(unit - self.prototypes[nearest], norms, shrinkage=self.shrinkage)
        reference = distances(features[torch.from_numpy(scaling)][:, None], self.prototypes, metric)
        self.metric = with_tails(metric, reference, self.shares)
        return self.calibrate(features[torch.from_numpy(calibrating)])

    def calibrate(self, x: npt.ArrayLike | Tensor) -> NoveltyDetector:
        """Take the calibration scores from these familiar features, which must not have been fitted on.

        Parameters
        ----------
        x : float array of shape (example, feature)

        Returns
        -------
        NoveltyDetector
            This one.
        """
        self.calibration = np.sort(self.predict(x))
        return self

    def predict(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Novelty scores, higher = more novel.

        Parameters
        ----------
        x : float array of shape (example, feature)

        Returns
        -------
        float64 array of shape (example,)
        """
        return combine(self._distances(x), self.metric)[0]

    def is_novel(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.bool_]:
        """Yes or no for each input, at the false-alarm rate; see `assess` for the reasons."""
        return self.assess(x).novel

    def assess(self, x: npt.ArrayLike | Tensor) -> Novelty:
        """Score, p-value, decision, nearest prototype and reason of each input.

        Parameters
        ----------
        x : float array of shape (example, feature)

        Returns
        -------
        Novelty

        Raises
        ------
        UsageError
            If the calibration examples are too few for the false-alarm rate.
        """
        return judge(self._distances(x), self.metric, self.calibration, rate=self.false_alarm_rate)

    def _distances(self, x: npt.ArrayLike | Tensor) -> Distances:
        if not hasattr(self, "prototypes"):
            raise UsageError("The detector must be fitted first. Call fit with familiar features.")
        features = _features(x)
        if features.shape[1] != self.prototypes.shape[1]:
            raise DataError(
                f"`x` must have {self.prototypes.shape[1]} features, got {features.shape[1]}. "
                "The detector was fitted on others."
            )
        return distances(features[:, None], self.prototypes, self.metric)


def with_tails(metric: NoveltyMetric, reference: Distances, shares: tuple[float, ...]) -> NoveltyMetric:
    """Learn from reference data how often each distance gets how large.

    Parameters
    ----------
    metric : NoveltyMetric
    reference : Distances
        Of familiar inputs that placed no prototype.
    shares : tuple of three floats
        Of the false alarms, for each test.

    Notes
    -----
    Quantiles up to 0.9; beyond, an exponential tail of the same mean excess, so that the score goes on growing where
    the reference data ends.
    """
    knots, excess = [], []
    for column in reference.values.cpu().numpy().T:
        quantiles = np.quantile(column, _KNOTS)
        beyond = column[column > quantiles[-1]] - quantiles[-1]
        knots.append(tuple(quantiles.tolist()))
        excess.append(max(float(beyond.mean()) if len(beyond) else 0.0, 1e-6))
    return replace(metric, knots=tuple(knots), excess=tuple(excess), shares=tuple(shares))


def combine(found: Distances, metric: NoveltyMetric) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Scores, and the test behind each."""
    values = found.values.cpu().numpy()
    parts = np.full(values.shape, -np.inf)
    for test, (knots, excess, share) in enumerate(zip(metric.knots, metric.excess, metric.shares, strict=True)):
        if share > 0:
            tail = -np.log1p(-np.interp(values[:, test], knots, _KNOTS))
            parts[:, test] = np.log(share) + tail + np.maximum(0.0, values[:, test] - knots[-1]) / excess
    return parts.max(1, initial=-np.inf), np.array(REASONS)[parts.argmax(1)]


def judge(found: Distances, metric: NoveltyMetric, calibration: npt.NDArray[np.float64], *, rate: float) -> Novelty:
    """Scores, p-values and decisions from distances.

    Raises
    ------
    UsageError
        If the calibration examples are too few for the rate.
    """
    check_rate(rate, len(calibration))
    scores, reasons = combine(found, metric)
    chances = p_values(scores, calibration)
    return Novelty(scores, chances, chances <= rate * (1 + 1e-12), found.nearest.cpu().numpy(), reasons)


def _prototypes(unit: Tensor, count: int, seed: int) -> Tensor:
    """Unit centres of k-means; the examples themselves where they are few."""
    rows = unit[(unit != 0).any(1)]
    if len(rows) == 0:
        return torch.eye(1, unit.shape[1])
    if len(rows) <= count:
        return rows
    found = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(rows.numpy())
    centres = torch.from_numpy(np.asarray(found.cluster_centers_, np.float32))
    return normalize(centres[(centres != 0).any(1)])


def _features(x: npt.ArrayLike | Tensor) -> Tensor:
    """Float32 rows on the CPU, or a `DataError`."""
    array: Any = x.detach().cpu() if isinstance(x, Tensor) else np.asarray(x)
    if array.ndim != 2 or (isinstance(array, np.ndarray) and array.dtype.kind not in "fiu"):
        raise DataError(
            f"`x` must be numbers of shape (example, feature), got {array.dtype} of shape {tuple(array.shape)}. "
            "Flatten or embed the inputs first."
        )
    features = torch.as_tensor(array if isinstance(array, Tensor) else np.ascontiguousarray(array)).float()
    if not bool(torch.isfinite(features).all()):
        raise DataError("`x` must be finite, got NaN or infinity. Drop or impute such rows.")
    return features
