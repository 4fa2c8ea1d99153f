"""What users give as arrays."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slots.sources.reading import is_source, read_source


def on_host(x: Any) -> Any:
    """A tensor or the inputs of a data set as the NumPy array that scikit-learn's checks take; all else as it is.

    Parameters
    ----------
    x : array-like, Tensor or data set
        Any shape, on whatever device; data sets as `slots.sources.read_source` reads them.

    Returns
    -------
    array-like

    Examples
    --------
    >>> import torch
    >>> on_host(torch.ones(2, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    if isinstance(x, Tensor):
        return x.numpy(force=True)
    return read_source(x).x if is_source(x) else x
