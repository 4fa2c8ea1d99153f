"""How many dimensions a cloud of inputs has near each of them, and how well cut a cloud without groups looks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from slots.clustering.kmeans import blocks
from slots.clustering.unit_rows import Unit

_ASKED = 1024  # inputs whose neighbourhoods are measured
_SAME = 1e-6  # distance in single precision below which two unit rows are one


@torch.no_grad()
def intrinsic_dimension(unit: Unit, near: npt.NDArray[np.integer]) -> float:
    """Dimension of the cloud of inputs, from how fast its neighbourhoods grow.

    Parameters
    ----------
    unit : float tensor of shape (example, feature), or UnitRows
        Rows of length 1.
    near : int array of shape (example, neighbour)
        The nearest others of each, the nearest first.

    Returns
    -------
    float
        At least 1; infinite where no input has two neighbours at different distances.

    Notes
    -----
    The maximum likelihood estimate of Levina and Bickel ("Maximum likelihood estimation of intrinsic dimension", 2004,
    eq. 8): the inverse of the mean of ``log(T_k / T_j)`` over the neighbours nearer than the k-th, whose distance is
    ``T_k``. Over the inputs, the inverses are averaged (MacKay and Ghahramani 2005). Neighbours in the same place are
    left out. Of at most 1,024 inputs, evenly taken. Above ten dimensions it says too little: 12 for 15, 16 for 20, 32
    for 60.

    Examples
    --------
    >>> angles = 3 * torch.rand(400, generator=torch.Generator().manual_seed(0))
    >>> arc = torch.stack([angles.cos(), angles.sin(), 0 * angles], 1)
    >>> near = (arc @ arc.T).topk(21).indices[:, 1:].numpy()
    >>> round(intrinsic_dimension(arc, near), 1)
    1.0
    """
    if near.shape[1] < 2:
        return math.inf
    asked = np.linspace(0, len(near) - 1, min(_ASKED, len(near))).astype(np.int64)
    slowness = []
    for some in blocks(len(asked), near.shape[1] * unit.shape[1]):
        rows = asked[some]
        here = unit[torch.from_numpy(rows).to(unit.device)].double()
        others = unit[torch.from_numpy(near[rows].astype(np.int64).ravel()).to(unit.device)].double()
        far = (others.reshape(len(rows), near.shape[1], -1) - here[:, None]).norm(dim=2)
        apart = far > _SAME  # a twin says nothing about how neighbourhoods grow
        logs = torch.where(apart, far.amax(1, keepdim=True) / far.clamp_min(_SAME), 1.0).log().sum(1)
        several = apart.sum(1) > 1
        slowness.append((logs / (apart.sum(1) - 1))[several].cpu())
    found = torch.cat(slowness)
    return max(1.0, 1 / float(found.mean())) if bool((found > 0).any()) else math.inf


def silhouette_without_groups(dimension: float) -> float:
    """Silhouette (`slots.graph.levels.silhouette`) up to which pieces of a cloud are no evidence of groups.

    Parameters
    ----------
    dimension : float
        Of the cloud, >= 1.

    Returns
    -------
    float
        In [0, 0.78].

    Notes
    -----
    Ours. Pieces that k-means cuts a cloud without groups into have a mean silhouette near ``3.1 / (dimension + 3)``,
    whether there are 2 or 100, and whether the cloud is Gaussian or even (`benchmarks/structureless.py`): 0.78 in 1
    dimension, 0.64 in 2, 0.39 in 5, 0.24 in 10. Groups of real data overlap, and hardly exceed that in many dimensions;
    so what is taken off falls faster: 0.55 in 2 dimensions, 0.17 in 5, 0.07 in 10.
    """
    return min(0.78, 1.3 * math.pow(dimension, -1.25))
