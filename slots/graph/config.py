"""What is set before a slot graph is learned."""

from __future__ import annotations

from dataclasses import dataclass

from slots.errors import UsageError
from slots.graph.communities import RESOLUTIONS


@dataclass(frozen=True)
class GraphConfig:
    """How a slot graph is learned.

    Parameters
    ----------
    n_slots : int, optional
        Slots to learn, >= 1, at least one for each group. Default: one for each round group, otherwise six times the
        square root of the number of inputs, at most 1,500 and at most a quarter of the inputs.
    n_communities : int, optional
        Wanted number, >= 1. Default: the number for which most speaks (`slots.graph.levels`).
    n_neighbours : tuple of int, default (15, 30)
        Nearest inputs that an input is linked with, each >= 1; at most a tenth of the inputs, but at least 2. The graph
        is taken whose groups have more evidence.
    most_linked : int, default 131,072
        Inputs that are linked, >= 1. Of more, groups are found and slots placed among an even sample of so many, drawn
        by the seed; then all inputs move the slots and bridge them. A group
        should have ten inputs or more in the sample.
    min_size : int, default 8
        Communities of fewer inputs are dissolved, >= 1: they are outliers. If all are as small, all stay.
    resolutions : tuple of float
        Each > 0; only where ``n_communities`` is no level's number, for the communities of slots (`find_communities`).
    sharpness : float, default 4.0
        How far from the middle between two slots an input may lie and still be a bridge, >= 0: the larger, the nearer
        to the middle; at 0 every input is a bridge of weight 1.
    beta : float, default 20.0
        Inverse temperature of the pooling over a community's slots, >= 0; the same as the head's.
    passes : int, default 8
        Passes of the k-means that places the slots, >= 1.
    runs : int, default 4
        Visiting orders tried at each of these resolutions, >= 1.
    seed : int, default 0
        Of the k-means and of the visiting orders.
    """

    n_slots: int | None = None
    n_communities: int | None = None
    n_neighbours: tuple[int, ...] = (15, 30)
    most_linked: int = 131_072
    min_size: int = 8
    resolutions: tuple[float, ...] = RESOLUTIONS
    sharpness: float = 4.0
    beta: float = 20.0
    passes: int = 8
    runs: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_slots", "n_communities", "most_linked", "min_size", "passes", "runs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` must be >= 1, got {value}. Leave it out for the default.")
        if not self.n_neighbours or min(self.n_neighbours) < 1:
            raise UsageError(f"`n_neighbours` must be numbers >= 1, got {self.n_neighbours}. Leave it out.")
        if not self.resolutions or min(self.resolutions) <= 0:
            raise UsageError(f"`resolutions` must be numbers > 0, got {self.resolutions}. 1 is the modularity.")
        if not self.sharpness >= 0 or not self.beta >= 0:
            raise UsageError(
                f"`sharpness` and `beta` must be >= 0, got {self.sharpness} and {self.beta}. Leave them out."
            )
