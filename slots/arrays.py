"""What users give as arrays."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def on_host(x: Any) -> Any:
    """A tensor, on whatever device, as the NumPy array that scikit-learn's checks take; anything else as it is.

    Parameters
    ----------
    x : array-like or Tensor
        Any shape.

    Returns
    -------
    array-like

    Examples
    --------
    >>> import torch
    >>> on_host(torch.ones(2, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    return x.numpy(force=True) if isinstance(x, Tensor) else x
