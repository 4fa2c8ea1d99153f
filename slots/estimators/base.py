"""What the estimators on feature rows have in common: rows are scaled and projected onto the sphere first."""
# ruff: noqa: N803 - scikit-learn calls it X

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from slots.arrays import on_host
from slots.estimators.projection import Geometry, Scaling, SphereProjection

Rows = npt.NDArray[np.float64]
UnitRows = npt.NDArray[np.float32]


class SphereEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator whose rows become unit vectors before slots see them.

    Scikit-learn reads the parameters of an estimator from its own constructor, so each of them names these again.

    Parameters
    ----------
    scaling : {"auto", "standard", "common", "none"}
        How features are centred and scaled before anything else.
    geometry : {"lifted", "direction"}, or "auto" of the classifier
        Whether distances count, or only cosines.
    height : float
        How flat the projection is, > 0.
    random_state : int, RandomState instance or None
        Where seeds are drawn from.

    Attributes
    ----------
    lift_ : SphereProjection
        From rows to what the slots see.
    """

    scaling: Scaling
    geometry: Geometry | Literal["auto"]
    height: float
    random_state: int | np.random.RandomState | None
    lift_: SphereProjection

    def _learn_projection(self, rows: Rows) -> SphereProjection:
        """Scale and height from these rows, by the estimator's parameters, which are checked here."""
        geometry = cast("Geometry", self.geometry)  # the classifier's "auto" does not come here
        self.lift_ = SphereProjection.of(rows, scaling=self.scaling, geometry=geometry, height=self.height)
        return self.lift_

    def _lifted(self, X: npt.ArrayLike) -> UnitRows:
        """Rows to be answered, as the slots see them."""
        check_is_fitted(self)
        return self.lift_(self._known_rows(X))

    def _known_rows(self, X: npt.ArrayLike) -> Rows:
        """Rows of as many features, under the same names, as those of the fit."""
        rows: Rows = validate_data(self, on_host(X), dtype=np.float64, reset=False)
        return rows

    def _drawn_seeds(self, count: int) -> list[int]:
        """Seeds from ``random_state``."""
        drawn: Any = check_random_state(self.random_state).randint(2**31 - 1, size=count)
        return [int(seed) for seed in drawn]
