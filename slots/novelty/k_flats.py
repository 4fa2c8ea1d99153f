"""Flat pieces of the surface that familiar inputs lie on: k-means whose centres are small affine spaces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slots.clustering.kmeans import owners

N_DIRECTIONS = 9
"""Directions of a flat; with its middle it takes the room of ten prototypes."""

_ROUNDS = 3  # of assigning and turning
_POWERS = 4  # of the subspace iteration; the gap to the next direction need not be sharp
_OWN = 0.5  # weight of a flat's own spread beside the mean of all: few examples lie closer than new ones will


@dataclass(frozen=True)
class Flats:
    """k flats: affine pieces that unit features of familiar inputs lie near.

    Parameters
    ----------
    middles : float tensor of shape (flat, feature)
        Means of the examples of each flat.
    directions : float tensor of shape (flat, feature, direction)
        Orthonormal columns.
    spreads : float tensor of shape (flat,)
        Usual squared distance of the examples of a flat from it, > 0.
    """

    middles: Float[Tensor, "flat feature"]
    directions: Float[Tensor, "flat feature direction"]
    spreads: Float[Tensor, " flat"]

    def __len__(self) -> int:
        return len(self.middles)

    def to(self, device: torch.device | str) -> Flats:
        """The same on another device."""
        return Flats(self.middles.to(device), self.directions.to(device), self.spreads.to(device))

    def only(self, keep: Bool[Tensor, " flat"]) -> Flats:
        """Some of them."""
        return Flats(self.middles[keep], self.directions[keep], self.spreads[keep])


def fit_flats(rows: Float[Tensor, "example feature"], count: int, *, directions: int, seed: int) -> Flats:
    """k-flats: affine pieces near examples, as k-means places centres.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        At least one.
    count : int
        Flats to begin with, >= 1; one that is left with no more examples than directions is dropped.
    directions : int
        Of each flat, at most one less than there are features.
    seed : int
        Where k-means and the subspace iteration start.

    Returns
    -------
    Flats
        None at all if every one is dropped.

    Notes
    -----
    Bradley and Mangasarian 2000 (k-plane clustering), Tseng 2000 (nearest q-flat): in turn, each example joins its
    nearest flat, and each flat turns to the main directions of its examples. It starts from k-means.
    """
    owner = _first_owners(rows, count, seed)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows.shape[1], directions, generator=generator)
    flats = _turned(rows, owner, start)
    for _ in range(_ROUNDS - 1):
        if len(flats) == 0:
            break
        owner = torch.cat([squared_distances(block, flats).argmin(1) for block in rows.split(4096)])
        flats = _turned(rows, owner, start)
    return flats


def squared_distances(rows: Float[Tensor, "*batch feature"], flats: Flats) -> Float[Tensor, "*batch flat"]:
    """Squared distance of rows to every flat."""
    n, feature, direction = flats.directions.shape
    wide = flats.directions.permute(1, 0, 2).reshape(feature, n * direction)
    offset = torch.einsum("nf,nfd->nd", flats.middles, flats.directions)
    along = (rows @ wide).reshape(*rows.shape[:-1], n, direction) - offset
    squares = rows.square().sum(-1, keepdim=True) + flats.middles.square().sum(-1) - 2 * rows @ flats.middles.T
    return (squares - along.square().sum(-1)).clamp_min(0)


def nearest_flat(
    views: Float[Tensor, "example view feature"], flats: Flats
) -> tuple[Float[Tensor, " example"], Int[Tensor, " example"]]:
    """Distance to the nearest flat in units of its spread, by the view that lies nearest, and that flat.

    Parameters
    ----------
    views : float tensor of shape (example, view, feature)
        Unit features.
    flats : Flats
        At least one.

    Returns
    -------
    distances : float64 tensor of shape (example,)
        float32 finds the nearest, float64 says how near it is.
    flats : int64 tensor of shape (example,)
    """
    scaled = (squared_distances(views.float(), flats) / flats.spreads).flatten(1)
    place = scaled.argmin(1)
    slot, view = place % len(flats), place // len(flats)
    here = views[torch.arange(len(views), device=views.device), view].double()
    found = torch.zeros(len(views), dtype=torch.float64, device=views.device)
    for k in slot.unique().tolist():
        gap = here[slot == k] - flats.middles[k].double()
        along = gap @ flats.directions[k].double()
        squared = (gap.square().sum(1) - along.square().sum(1)).clamp_min(0)
        found[slot == k] = (squared / flats.spreads[k].double()).sqrt()
    return found, slot


def _first_owners(rows: Tensor, count: int, seed: int) -> Tensor:
    """Clusters of k-means."""
    return torch.from_numpy(owners(rows.numpy(), min(count, len(rows)), seed=seed, minibatch=True))


def _turned(rows: Tensor, owner: Tensor, start: Tensor) -> Flats:
    """Mean, main directions and remaining variance of the examples of each owner."""
    middles, directions, spreads = [], [], []
    for k in owner.unique().tolist():
        own = rows[owner == k]
        if len(own) <= start.shape[1]:
            continue
        middle = own.mean(0)
        gap = own - middle
        basis = _main_directions(gap, start)
        middles.append(middle)
        directions.append(basis)
        spreads.append((gap - (gap @ basis) @ basis.T).square().sum(1).mean())
    if not middles:
        feature, direction = start.shape
        return Flats(rows.new_zeros(0, feature), rows.new_zeros(0, feature, direction), rows.new_zeros(0))
    spread = torch.stack(spreads)
    floor = float(spread.mean()) or 1.0
    return Flats(torch.stack(middles), torch.stack(directions), _OWN * spread + (1 - _OWN) * floor)


def _main_directions(gap: Tensor, start: Tensor) -> Tensor:
    """Orthonormal columns near the leading right singular vectors, by subspace iteration."""
    basis: Tensor = torch.linalg.qr(start)[0]
    for _ in range(_POWERS):
        basis = torch.linalg.qr(gap.T @ (gap @ basis))[0]
    return basis
