"""What `SlotClassifier` does not get told: geometry and training, chosen by the accuracy on held-out rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slots.estimators.projection import Geometry, Rows, Scaling, SphereProjection
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig, Look, is_ahead, look_at
from slots.training.fitting import hold_out

_MANY = 4000  # rows from which on a full look at each projection takes seconds, and a short one tells enough
_SIMPLE: dict[str, Any] = {"slots_per_class": 1, "scale": 20.0}  # of a short look


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
) -> tuple[SphereProjection, TrainConfig | Look]:
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
    Each projection is judged by `slots.training.look_at`, at its best; but where there are thousands of rows, with one
    slot a class only, and the better one gets a full look. What the fit holds out to say how far slots vouch has no
    part in it.
    """
    seen = np.setdiff1d(np.arange(len(ids)), hold_out(ids, auto.base.held_out, auto.base.seed))
    labels, many = ids[seen], len(seen) >= _MANY
    first = auto
    if many and len(projections) > 1:
        simple = {name: value for name, value in _SIMPLE.items() if name not in auto.given}
        first = AutoConfig(replace(auto.base, **simple), auto.given | set(simple))
    best, found = projections[0], None
    for projection in projections:
        look = look_at(torch.from_numpy(projection(rows[seen])), labels, first)
        if look is not None and (found is None or is_ahead(look.right, found.right)):
            best, found = projection, look
    if first is not auto:
        found = look_at(torch.from_numpy(best(rows[seen])), labels, auto)
    return best, auto.base if found is None else found
