"""How slots are trained for certificates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from slots.errors import UsageError

Norm = Literal["l2", "linf"]
"""How a change is measured: by its Euclidean length, or by its largest entry."""

_FLOORS: Final = {"l2": -0.04, "linf": -math.inf}  # measured on MNIST; for linf nothing was


@dataclass(frozen=True)
class RobustConfig:
    """Train the certified radius of the right answer instead of a cross-entropy.

    Parameters
    ----------
    norm : {"l2", "linf"}, default "l2"
        How changes of the input are measured.
    radius : float, default 2.5
        Radius up to which a larger certificate is rewarded, > 0, in units of the scaled input (pixels lie in [0, 1]).
        Larger than the radius that shall hold: 2.5 serves 1.58 in Euclidean length, 0.3 serves 0.1 a pixel.
    plain : float in [0, 1], default 0.5
        Share of the images that are shown as they are, where `TrainConfig.augment` changes the others. If it changed
        all of them, slots would be spread over changes that no test image shows.
    floor : float, optional
        Share of the radius, <= 0. An image whose signed radius lies below it moves nothing: it is wrong by so much that
        the room is better given to others. Default: -0.04 for l2, no floor for linf.

    Raises
    ------
    UsageError
        If the norm is another, the radius is not a finite number above 0, the share lies outside [0, 1], or the floor
        above 0.
    """

    norm: Norm = "l2"
    radius: float = 2.5
    plain: float = 0.5
    floor: float | None = None

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UsageError(f"`norm` must be l2 or linf, got {self.norm!r}. Pass robust=RobustConfig(norm='l2').")
        if not 0 <= self.plain <= 1:
            raise UsageError(f"`plain` must lie in [0, 1], got {self.plain}. 0.5 changes one image in two.")
        if self.floor is not None and not self.floor <= 0:
            raise UsageError(f"`floor` must be <= 0, got {self.floor}. -0.04 gives up what is wrong by far.")
        if not 0 < self.radius < math.inf:
            raise UsageError(f"`radius` must be a number > 0, got {self.radius}. 2.5 suits pixels in Euclidean length.")

    @property
    def least(self) -> float:
        """Signed radius below which an image moves nothing."""
        share = _FLOORS[self.norm] if self.floor is None else self.floor
        return share * self.radius
