"""Principal directions of fewer rows than features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = 1e-8  # share of the largest length below which nothing varies along a direction


def along_rows(rows: Float[Tensor, "example feature"]) -> tuple[Tensor, Tensor]:
    """The directions along which few rows lie: what their covariance's eigenvectors are, found quicker.

    Parameters
    ----------
    rows : float64 tensor of shape (example, feature)
        At least one.

    Returns
    -------
    values : float64 tensor of shape (direction,)
        Mean square of the rows along each, ascending; along all others it is 0. At least one direction.
    vectors : float64 tensor of shape (feature, direction)
        Orthonormal columns.

    Examples
    --------
    >>> values, vectors = along_rows(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -4.0]], dtype=torch.float64))
    >>> values.tolist(), vectors.abs().T.tolist()
    ([2.0, 8.0], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    """
    _, lengths, vectors = torch.linalg.svd(rows, full_matrices=False)
    values = lengths.square() / len(rows)
    there = max(1, int((values > _TINY**2 * values[0]).sum()))
    return values[:there].flip(0), vectors[:there].flip(0).T
