"""Novelty: how far an input lies from what is remembered, with a false-alarm rate that is held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.clustering.device_kmeans import device_centres
from slots.clustering.kmeans import centres
from slots.errors import DataError, UsageError
from slots.head.similarities import normalize
from slots.novelty.assessment import Novelty, assess_distances, assess_scores
from slots.novelty.class_detector import MEASURES, FamiliarClasses, fit_classes, fit_weights
from slots.novelty.conformal import check_rate, offers
from slots.novelty.distances import Distances, NoveltyMetric, distances
from slots.novelty.k_flats import N_DIRECTIONS, fit_flats
from slots.novelty.tails import bonferroni_score, fit_tails
from slots.novelty.weighting import WeightedScore
from slots.shapes import Ids

NARROW = (0.35, 0.35, 0.05, 0.25)
"""Shares of a detector for angle, pattern, size and surface. Among few features, nine directions are much of the space,
and to lie near a flat says little."""

WIDE = (0.3, 0.15, 0.05, 0.5)
"""The same for more than 256 features, where few prototypes lie near anything and flats do."""

Shares = tuple[float, float, float] | tuple[float, float, float, float]
_WIDTH = 256
_NEIGHBOURS = {False: 10, True: 3}  # of narrow features, and of wide ones, where the tenth is far already
_FOLDS = 5  # of few rows, each fold is judged by what the others taught
_PLACED = 0.75  # share of few rows that are placed; the others say how far familiar ones lie
_FEW = 100  # with fewer prototypes the tenth is no neighbour


class NoveltyDetector:
    """Out-of-distribution detector with split conformal p-values: the false-alarm rate that is asked for is held.

    Parameters
    ----------
    n_prototypes : int, default 500
        Vectors remembered (count, >= 1): directions from k-means of the training features and, from 20 on, about half
        of the room for flats, one of `slots.novelty.k_flats.N_DIRECTIONS` directions for each 20.
    false_alarm_rate : float in (0, 1), default 0.05
        Largest share of familiar inputs that `is_novel` may flag.
    shares : three or four floats >= 0 with sum 1, optional
        Shares of the false alarms spent on the angle, the pattern, the size (norm) of the features, which cosine
        similarity throws away, and the surface. Three leave the surface out. More for the angle or the surface finds
        classes that resemble known ones, more for the pattern what is wholly foreign. Default: `NARROW` up to 256
        features, `WIDE` beyond.
    shrinkage : float, default 0.05
        Share of the mean variance added along each direction of the metric.
    seed : int, default 0
        Where the split of the training features and the starts of k-means come from.

    Attributes
    ----------
    prototypes : float tensor of shape (prototype, feature)
    metric : NoveltyMetric
    calibration : float64 array of shape (calibration example,)
        Scores of held-out familiar examples, ascending.
    alike : float64 array of shape (some,)
        Scores of familiar examples where every class comes as often as another, ascending; none without labels, where
        all classes have about as many examples, and after `calibrate`.

    Notes
    -----
    Four distances: the mean angle to the ten nearest prototypes (the three nearest beyond 256
    features, the nearest where there are fewer than a hundred prototypes);
    the Mahalanobis distance of the unit features to the nearest prototype under the pooled covariance within prototypes
    (Lee et al. 2018 use class means, here each prototype is one); the logarithm of the norm; and the distance to the
    nearest of a few flat pieces (`slots.novelty.k_flats`). Each misses what another finds (`docs/novelty.md`).

    The score is the largest of ``log(share / tail)`` over the tests, with the tail of each distance taken from
    reference data: Bonferroni's rule with weights. A maximum is one score, so one split-conformal calibration
    (`slots.novelty.conformal`) covers all tests, whatever the tails and the shares are taken to be.

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
        shares: Shares | None = None,
        shrinkage: float = 0.05,
        seed: int = 0,
    ) -> None:
        if n_prototypes < 1:
            raise UsageError(f"`n_prototypes` must be >= 1, got {n_prototypes}. Some hundred are usual.")
        if shares is not None and (len(shares) not in (3, 4) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9):
            raise UsageError(f"`shares` must be three or four numbers >= 0 with sum 1, got {shares}. Try {NARROW}.")
        if shrinkage <= 0:
            raise UsageError(f"`shrinkage` must be > 0, got {shrinkage}. Try 0.05.")
        check_rate(false_alarm_rate, 10**9)
        self.n_prototypes, self.false_alarm_rate = n_prototypes, false_alarm_rate
        self.shares, self.shrinkage, self.seed = shares, shrinkage, seed
        self.calibration, self.alike = np.zeros(0), np.zeros(0)
        self._classes: tuple[FamiliarClasses, WeightedScore] | None = None

    def fit(self, x: npt.ArrayLike | Tensor, y: npt.ArrayLike | Tensor | None = None) -> NoveltyDetector:
        """Learn from familiar features; a part of them is kept aside for scales and calibration.

        Parameters
        ----------
        x : float array of shape (example, feature)
            At least 10 rows. Seven tenths place the prototypes, one tenth sets the scales, two tenths calibrate; with
            labels eight tenths do both, in turn. Where two tenths are too few for the false-alarm rate (fewer than 91
            rows for 5 %), all are learned, and each fifth of them is scored by what the other four fifths teach.
        y : array of shape (example,), optional
            Labels of any kind. With them, the score also asks which class an input is of, and finds new classes that
            lie near known ones far better. Default: none are known.

        Returns
        -------
        NoveltyDetector
            This one.

        Raises
        ------
        DataError
            If ``x`` has another form, too few rows, or numbers that are not finite; if ``y`` has not a label a row.
        """
        features = _features(x)
        if len(features) < 10:
            raise DataError(f"`x` must have at least 10 rows, got {len(features)}. Give more familiar examples.")
        labels = None if y is None or self.shares is not None else _labels(y, len(features))
        device = x.device if isinstance(x, Tensor) else features.device
        order = np.random.default_rng(self.seed).permutation(len(features))
        learned, calibrating = np.split(order, [int(0.8 * len(order))])
        if offers(self.false_alarm_rate, len(calibrating)):
            self._learn(features, labels, learned, int(0.7 * len(order)), device)
            return self._calibrated(features[torch.from_numpy(calibrating)])
        scores = np.concatenate([self._left_out(features, labels, order, i, device) for i in range(_FOLDS)])
        self._learn(features, labels, order, int(_PLACED * len(order)), device)
        self.calibration = np.sort(scores)
        return self

    def _left_out(
        self, features: Tensor, labels: Ids | None, order: Ids, fold: int, device: torch.device
    ) -> npt.NDArray[np.float64]:
        """Scores of every fifth row by what was learned from the others."""
        left = np.arange(len(order)) % _FOLDS == fold
        self._learn(features, labels, order[~left], int(_PLACED * (~left).sum()), device)
        return self.predict(features[torch.from_numpy(order[left])])

    def _learn(self, features: Tensor, labels: Ids | None, rows: Ids, placed: int, device: torch.device) -> None:
        """Prototypes from the first of some rows in random order, tails from the rest; with labels both from all."""
        self._classes, self.alike = None, np.zeros(0)
        if labels is not None:
            self._learn_classes(features[torch.from_numpy(rows)], labels[rows])
            return
        placing, scaling = (features[torch.from_numpy(it)] for it in np.split(rows, [placed]))
        metric = self._place(placing, device)
        reference = distances(scaling[:, None], self.prototypes, metric)
        tests = reference.values.shape[1]
        shares = self._shares(features.shape[1])[:tests]  # there may be too little room for flats
        self.metric = fit_tails(metric, reference, tuple(share / sum(shares) for share in shares))

    def _learn_classes(self, features: Tensor, labels: Ids) -> None:
        known = fit_classes(features, labels, n_prototypes=self.n_prototypes, seed=self.seed)
        score, self.alike = fit_weights(features, labels, n_prototypes=self.n_prototypes, seed=self.seed)
        self.prototypes, self._classes = known.prototypes, (known, score)

    def _shares(self, width: int) -> Shares:
        return self.shares if self.shares is not None else WIDE if width > _WIDTH else NARROW

    def _place(self, features: Tensor, device: torch.device) -> NoveltyMetric:
        """Put prototypes and flats among unit features; returns the metric about them."""
        unit = normalize(features)
        directions = min(N_DIRECTIONS, unit.shape[1] // 4)
        wanted = 0 if directions == 0 or (*self._shares(unit.shape[1]), 0.0)[3] == 0 else 1
        count = wanted * min(self.n_prototypes // (2 * (1 + N_DIRECTIONS)), len(unit) // (3 * (1 + directions)))
        flats = fit_flats(unit, count, directions=directions, seed=self.seed) if count else None
        room = self.n_prototypes - (0 if flats is None else len(flats) * (1 + directions))
        self.prototypes = _prototypes(unit, room, self.seed, device)
        nearest = torch.cat([(part @ self.prototypes.T).argmax(1) for part in unit.split(4096)])
        norms = features.double().norm(dim=1)
        metric = NoveltyMetric.of(unit - self.prototypes[nearest], norms, shrinkage=self.shrinkage)
        neighbours = _NEIGHBOURS[unit.shape[1] > _WIDTH] if len(self.prototypes) >= _FEW else 1
        return replace(metric, neighbours=neighbours, flats=flats if flats is not None and len(flats) else None)

    def calibrate(self, x: npt.ArrayLike | Tensor) -> NoveltyDetector:
        """Take the calibration scores from these familiar features, which must not have been fitted on.

        Parameters
        ----------
        x : float array of shape (example, feature)
            Familiar features; their number bounds the smallest false-alarm rate, 1 in n + 1.

        Returns
        -------
        NoveltyDetector
            This one.
        """
        self.alike = np.zeros(0)
        return self._calibrated(x)

    def _calibrated(self, x: npt.ArrayLike | Tensor) -> NoveltyDetector:
        self.calibration = np.sort(self.predict(x))
        return self

    @property
    def n_vectors(self) -> int:
        """Vectors remembered once fitted (count): prototypes, and the centre and directions of each flat."""
        if self._classes is not None:
            return len(self.prototypes) + len(self._classes[0].gaussians)
        flats = self.metric.flats
        return len(self.prototypes) + (0 if flats is None else len(flats) * (1 + flats.directions.shape[2]))

    def predict(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Novelty scores, higher = more novel.

        Parameters
        ----------
        x : float array of shape (example, feature)
            Raw features, not scaled to unit length.

        Returns
        -------
        float64 array of shape (example,)
        """
        if self._classes is not None:
            return self._classes[1](self._measured(x)[0])[0]
        return bonferroni_score(self._distances(x), self.metric)[0]

    def is_novel(self, x: npt.ArrayLike | Tensor) -> npt.NDArray[np.bool_]:
        """Yes or no for each input, at the false-alarm rate; see `assess` for the reasons."""
        return self.assess(x).novel

    def assess(self, x: npt.ArrayLike | Tensor) -> Novelty:
        """Score, p-value, decision, nearest prototype and reason of each input.

        Parameters
        ----------
        x : float array of shape (example, feature)
            Raw features, not scaled to unit length.

        Returns
        -------
        Novelty

        Raises
        ------
        UsageError
            If the calibration examples are too few for the false-alarm rate.
        """
        if self._classes is not None:
            values, nearest = self._measured(x)
            scores, measures = self._classes[1](values)
            reasons = np.array(MEASURES)[measures]
            return assess_scores(
                scores, reasons, nearest, self.calibration, rate=self.false_alarm_rate, alike=self.alike
            )
        return assess_distances(self._distances(x), self.metric, self.calibration, rate=self.false_alarm_rate)

    def _measured(self, x: npt.ArrayLike | Tensor) -> tuple[npt.NDArray[np.float64], Ids]:
        """Measures of a fit with labels, and nearest prototypes."""
        known, _ = self._classes or (None, None)
        assert known is not None
        values, nearest = known.measures(self._checked(x))
        return values.numpy(), nearest.numpy()

    def _distances(self, x: npt.ArrayLike | Tensor) -> Distances:
        return distances(self._checked(x)[:, None], self.prototypes, self.metric)

    def _checked(self, x: npt.ArrayLike | Tensor) -> Tensor:
        if not hasattr(self, "prototypes"):
            raise UsageError("The detector must be fitted first. Call fit with familiar features.")
        features = _features(x)
        if features.shape[1] != self.prototypes.shape[1]:
            raise DataError(
                f"`x` must have {self.prototypes.shape[1]} features, got {features.shape[1]}. "
                "The detector was fitted on others."
            )
        return features


def _labels(y: npt.ArrayLike | Tensor, n: int) -> Ids:
    """Ids of labels of any kind, or a `DataError`."""
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.shape != (n,):
        raise DataError(f"`y` must have shape ({n},), one label a row, got {array.shape}. Leave it out for none.")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _prototypes(unit: Tensor, count: int, seed: int, device: torch.device) -> Tensor:
    """Unit centres of k-means, found on a device; the examples themselves where they are few."""
    rows = unit[(unit != 0).any(1)]
    if len(rows) == 0:
        return torch.eye(1, unit.shape[1])
    if len(rows) <= count:
        return rows
    if device.type != "cpu":
        return normalize(device_centres(rows.to(device), count, seed=seed).cpu())
    return normalize(torch.from_numpy(centres(rows.numpy(), count, seed=seed, minibatch=True)))


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
