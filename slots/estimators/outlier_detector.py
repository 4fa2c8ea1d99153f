"""`SlotOutlierDetector`: flags rows far from all that is remembered, at a promised rate of false alarms."""
# ruff: noqa: N803 - scikit-learn calls it X

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import OutlierMixin
from sklearn.utils.validation import validate_data

from slots.arrays import on_host
from slots.errors import UsageError
from slots.estimators.base import Rows, SphereEstimator, UnitRows
from slots.estimators.projection import Geometry, Scaling
from slots.novelty.conformal import p_values, threshold
from slots.novelty.detector import NoveltyDetector

_FEWEST = 10  # `NoveltyDetector` wants as many to place prototypes and set scales


class SlotOutlierDetector(OutlierMixin, SphereEstimator):  # type: ignore[misc]
    """Outlier and novelty detector: how far a row lies from a few prototypes of the training rows.

    Parameters
    ----------
    contamination : "auto" or float in (0, 0.5], default "auto"
        A number is the share of the training rows to flag, as elsewhere in scikit-learn. ``auto`` calibrates on rows
        set aside so that new rows like them are flagged no more often than ``false_alarm_rate``.
    false_alarm_rate : float in (0, 1), default 0.05
        Used by ``auto``. With fewer than ``1 / false_alarm_rate - 1`` rows set aside nothing can be promised but by
        never flagging, and that is what happens.
    n_prototypes : int, optional
        Directions remembered, >= 1. Default: half as many as the rows that place them, at most 500.
    scaling : {"auto", "standard", "common", "none"}, default "auto"
        How features are centred and scaled before anything else (`slots.estimators.projection.SphereProjection`).
    geometry : {"lifted", "direction"}, default "lifted"
        ``lifted`` keeps distances; ``direction`` compares rows by cosine alone.
    height : float, default 4.0
        How flat the lift is, > 0: at large values angles are distances, at small ones they are directions.
    random_state : int, RandomState instance or None, default None
        Of which rows are set aside, and of the prototypes.

    Attributes
    ----------
    offset_ : float
        Rows whose `score_samples` is below it are outliers; minus infinity where none can be flagged.
    calibration_scores_ : float64 array of shape (set aside,)
        `score_samples` of the fifth of the rows that was set aside, ascending.
    detector_ : NoveltyDetector
        Works on lifted rows; ``detector_.assess(lift_(X))`` names reasons. Its scores are higher for novel rows.
    lift_ : SphereProjection
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)
        Only where ``X`` has string column names.

    Notes
    -----
    The score is `slots.novelty.NoveltyDetector`'s on lifted rows, without its test of the norm, since the lift keeps
    the norm. ``auto`` is split conformal prediction (Vovk, Gammerman and Shafer 2005): of ``n`` rows set aside and
    one new row that is exchangeable with them, the new one is among the ``k`` least familiar with a probability of at
    most ``k / (n + 1)``, ``k = floor(false_alarm_rate * (n + 1))``. The promise is for the average over calibrations
    and new rows, and for training rows without outliers among them.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> detector = SlotOutlierDetector(random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.1], [6.0, 6.0]])
    array([ 1, -1])
    >>> detector.p_values([[6.0, 6.0]]).round(3)
    array([0.012])
    """

    def __init__(
        self,
        contamination: float | Literal["auto"] = "auto",
        *,
        false_alarm_rate: float = 0.05,
        n_prototypes: int | None = None,
        scaling: Scaling = "auto",
        geometry: Geometry = "lifted",
        height: float = 4.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_prototypes = n_prototypes
        self.scaling = scaling
        self.geometry = geometry
        self.height = height
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Remember prototypes of the rows and set the threshold.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            At least 10 rows; of 13 and more one in five is set aside for calibration.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        SlotOutlierDetector
            Itself.
        """
        rows = validate_data(self, on_host(X), dtype=np.float64, ensure_min_samples=_FEWEST)
        self._check_numbers()
        (seed,) = self._drawn_seeds(1)
        order = np.random.default_rng(seed).permutation(len(rows))
        n_aside = min(len(rows) // 5, len(rows) - _FEWEST)
        aside, kept = rows[order[:n_aside]], rows[order[n_aside:]]
        # Rows that calibrate must have no part in anything else, the scaling included.
        lift = self._learn_projection(kept)
        usual = min(500, int(np.ceil(0.5 * 0.7 * len(kept))))  # `NoveltyDetector` places them by seven rows in ten
        self.detector_ = NoveltyDetector(
            usual if self.n_prototypes is None else self.n_prototypes,
            false_alarm_rate=self.false_alarm_rate,
            shares=(2 / 3, 1 / 3, 0.0),
            seed=seed,
        ).fit(lift(kept))
        self.detector_.calibrate(lift(aside))
        self.calibration_scores_ = -self.detector_.calibration[::-1]
        self.offset_ = self._threshold(rows)
        return self

    def score_samples(self, X: npt.ArrayLike) -> Rows:
        """How familiar each row is: higher = more normal, as everywhere in scikit-learn.

        The opposite of `slots.novelty.detector`, where higher is more novel.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example,)
            Minus the novelty score: 0 is usual, -1 is where one test alone would spend its share of the false alarms.
        """
        return self._familiarity(self._lifted(X))

    def decision_function(self, X: npt.ArrayLike) -> Rows:
        """`score_samples` less the threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example,)
        """
        scores = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """+1 for what is familiar, -1 for outliers.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        int64 array of shape (example,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def p_values(self, X: npt.ArrayLike) -> Rows:
        """Conformal p-value of each row: small = novel.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example,)
            ``(1 + rows set aside that are no more familiar) / (1 + rows set aside)``.
        """
        return p_values(-self.score_samples(X), -self.calibration_scores_)

    def _familiarity(self, lifted: UnitRows) -> Rows:
        return -self.detector_.predict(lifted)

    def _threshold(self, rows: Rows) -> float:
        if self.contamination != "auto":
            return float(np.percentile(self._familiarity(self.lift_(rows)), 100 * self.contamination))
        if self.false_alarm_rate * (len(self.calibration_scores_) + 1) < 1:
            return -np.inf
        return -threshold(-self.calibration_scores_, self.false_alarm_rate)

    def _check_numbers(self) -> None:
        share = self.contamination
        if share != "auto" and (isinstance(share, str) or not 0 < share <= 0.5):
            raise UsageError(f"`contamination` must be 'auto' or lie in (0, 0.5], got {share!r}. Try 'auto'.")
