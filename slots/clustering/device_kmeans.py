"""k-means on a GPU: the centres that `kmeans` finds with scikit-learn on the CPU, found where the rows lie."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_FLOATS = 1 << 26  # distances held at once: 256 MB
_SAME = 1e-6  # squared distance, relative to the largest norm, below which rows are the same


@torch.no_grad()
def device_centres(rows: Float[Tensor, "example feature"], count: int, *, seed: int, passes: int = 10) -> Tensor:
    """Centres of k-means, without those that are 0.

    Parameters
    ----------
    rows : float32 tensor of shape (example, feature)
        On any device.
    count : int
        Centres wanted (>= 1); fewer come back where there are fewer different rows.
    seed : int
        Of the first centres.
    passes : int, default 10
        Passes over all rows (Lloyd); more move the centres little.

    Returns
    -------
    float32 tensor of shape (centre, feature)
        On the device of the rows, the same for the same rows, seed and kind of device.

    Notes
    -----
    The first centres are drawn as k-means++ does (Arthur and Vassilvitskii 2007), by the exponential race: the row with
    the smallest ``e / d`` is a draw with chances in proportion to the squared distance ``d``, and a minimum does not
    depend on the order in which a device adds. A centre that loses all its rows stays where it is.
    """
    centres = _drawn(rows, count, torch.Generator(rows.device).manual_seed(seed))
    for _ in range(passes):
        sums = torch.zeros_like(centres)
        sizes = torch.zeros(len(centres), device=rows.device)
        for part in rows.split(max(1, _BLOCK_FLOATS // max(1, len(centres)))):
            mine = torch.nn.functional.one_hot(_owners(part, centres), len(centres)).to(rows.dtype)
            sums += mine.T @ part  # a product, since adding rows one by one has no fixed order on a GPU
            sizes += mine.sum(0)
        centres = torch.where((sizes > 0)[:, None], sums / sizes.clamp_min(1)[:, None], centres)
    return centres[(centres != 0).any(1)]


def _drawn(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Different rows, each drawn with chances in proportion to its squared distance from those before."""
    squares = rows.square().sum(1)
    same = _SAME * squares.max()
    distance = torch.ones_like(squares)
    drawn, worth = [], []
    for _ in range(min(count, len(rows))):
        race = torch.empty_like(distance).exponential_(generator=generator) / distance
        chosen = torch.where(distance > 0, race, torch.inf).argmin()
        drawn.append(chosen)
        worth.append(distance[chosen] > 0)
        gap = (squares + squares[chosen] - 2 * (rows @ rows[chosen])).clamp_min(0)
        gap = torch.where(gap > same, gap, 0.0)
        distance = gap if len(drawn) == 1 else torch.minimum(distance, gap)
    return rows[torch.stack(drawn)[torch.stack(worth)]]


def _owners(rows: Tensor, centres: Tensor) -> Int[Tensor, " example"]:
    """Number of the nearest centre, the lowest of equal ones."""
    return (centres.square().sum(1) - 2 * rows @ centres.T).argmin(1)
