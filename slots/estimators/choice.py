"""What `SlotClassifier` does not get told: geometry and training, chosen by the accuracy on held-out rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from slots.estimators.projection import Geometry, Rows, Scaling, SphereProjection
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig, Look, look_at
from slots.training.fitting import hold_out

_STANDARD_ERRORS = 0.5  # by which directions must be ahead of the lift, which keeps all that a row says


def candidates(
    rows: Rows, *, scaling: Scaling, geometry: Geometry | None, height: float
) -> tuple[SphereProjection, ...]:
    """Projections worth a look, the one to prefer first.

    Parameters
    ----------
    rows : float array of shape (example, feature)
        At least one row, finite.
    scaling : {"auto", "standard", "common", "none"}
        As `SphereProjection.of` takes it.
    geometry : {"lifted", "direction"}, optional
        None: both. Directions then keep the rows' own origin where all features share a unit (embeddings, pixels)
        and the scaling is left open, since the fit may still centre them (a whitening with shrinkage 1).
    height : float
        Of the lift, > 0.
    """
    if geometry is not None:
        return (SphereProjection.of(rows, scaling=scaling, geometry=geometry, height=height),)
    lifted = SphereProjection.of(rows, scaling=scaling, geometry="lifted", height=height)
    shared = bool((lifted.scale == lifted.scale[0]).all())
    origin: Scaling = "none" if scaling == "auto" and shared else scaling
    return lifted, SphereProjection.of(rows, scaling=origin, geometry="direction", height=height)


def choose(
    rows: Rows, ids: npt.NDArray[np.int64], projections: tuple[SphereProjection, ...], auto: AutoConfig
) -> tuple[SphereProjection, TrainConfig]:
    """Projection and training that answer held-out rows best.

    Parameters
    ----------
    rows : float array of shape (example, feature)
        Training rows, before any projection.
    ids : int64 array of shape (example,)
        Their classes, >= 0.
    projections : tuple of SphereProjection
        The first is taken unless a later one is ahead by half a standard error.
    auto : AutoConfig
        What is given already, and what to use where there is nothing to look at.

    Notes
    -----
    `slots.training.look_at` judges each projection with the whitening, number of slots and scale that suit it best.
    What the fit holds out to say how far slots vouch has no part in it.
    """
    seen = np.setdiff1d(np.arange(len(ids)), hold_out(ids, auto.base.held_out, auto.base.seed))
    best: tuple[SphereProjection, Look] | None = None
    for projection in projections:
        look = look_at(torch.from_numpy(projection(rows[seen])), ids[seen], auto)
        if look is not None and (best is None or _is_ahead(look, best[1])):
            best = projection, look
    return (projections[0], auto.base) if best is None else (best[0], best[1].config)


def _is_ahead(look: Look, other: Look) -> bool:
    """Whether by more than what chance makes of as many rows."""
    accuracy = other.chosen.accuracy
    error = np.sqrt(2 * accuracy * (1 - accuracy) / max(1, other.n_checked))
    return look.chosen.accuracy > accuracy + _STANDARD_ERRORS * float(error)
