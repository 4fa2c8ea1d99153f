"""The similarity of features and slots, as pure functions.

A slot has two caps, balls on the unit sphere: the *precision cap* around its weight and the *support cap* around its
centre. An input matches a slot when one of its views lies inside both. Every rule of matching is written a second time,
slowly and literally, in ``tests/support/reference.py``.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.shapes import Similarities, SlotVectors

Metric = Literal["cosine", "l2"]

_SAFE = {torch.float32: (2.0**-50, 2.0**60, 2.0**90), torch.float64: (2.0**-400, 2.0**500, 2.0**600)}
"""Lengths between which squares neither vanish nor overflow, and the power of two that brings other rows there."""


def normalize(x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
    """Scale each row to unit length; a zero row stays zero, and so matches nothing.

    Parameters
    ----------
    x : float tensor of shape (..., feature)
        Any finite values.

    Returns
    -------
    float tensor of shape (..., feature)
        Rows of Euclidean length 1 or 0.

    Examples
    --------
    >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    if x.dtype in _SAFE and (x.device.type == "cpu" or x.dtype == torch.float32):  # float64 is of float32 numbers there
        low, high, power = _SAFE[x.dtype]
        if x.device.type == "cpu" and norm.numel():
            least, most = torch.aminmax(norm.detach())
            if float(least) > low and float(most) < high:  # the usual case; a number that is none is not above
                unit: Tensor = x / norm
                return unit
        safe = (norm > low) & (norm < high)
        if x.device.type != "cpu" or not bool(safe.all()):  # off the CPU a look would cost a wait
            up = torch.where(norm > low, torch.full_like(norm, 1 / power), torch.full_like(norm, power))
            x = x * torch.where(safe, torch.ones_like(norm), up)
            norm = torch.where(safe, norm, torch.linalg.vector_norm(x, dim=-1, keepdim=True))
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def feature_lengths(x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch"]:
    """Euclidean lengths of rows of any scale, in float32: finite for finite rows.

    Parameters
    ----------
    x : float tensor of shape (..., feature)
        Any finite values.

    Returns
    -------
    float32 tensor of shape (...)
        At most the largest float32, and that where a length lies beyond.

    Examples
    --------
    >>> feature_lengths(torch.tensor([[3.0, 4.0], [3e30, 4e30]]))
    tensor([5.0000e+00, 5.0000e+30])
    """
    wide: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return wide.clamp_max(torch.finfo(torch.float32).max).float()


def inverse_lengths(vectors: SlotVectors, *, at_once: int) -> Float[Tensor, " slot"]:
    """One over the length of each row, in float64; 1 for a zero row.

    Parameters
    ----------
    vectors : float tensor of shape (slot, feature)
        Any rows.
    at_once : int
        Rows of which float64 copies are held together (count, >= 1).

    Returns
    -------
    float64 tensor of shape (slot,)
    """
    lengths = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in vectors.split(at_once)])
    return torch.where(lengths > 0, 1 / lengths, torch.ones_like(lengths))


def similarity(
    features: Float[Tensor, "*batch feature"], slots: SlotVectors, *, metric: Metric = "cosine"
) -> Float[Tensor, "*batch slot"]:
    """Similarity of every input to every slot, higher = closer.

    Parameters
    ----------
    features : float tensor of shape (..., feature)
        Raw features; for ``"cosine"`` they are normalised here.
    slots : float tensor of shape (slot, feature)
        Slot vectors, of unit length for ``"cosine"``.
    metric : {"cosine", "l2"}
        ``"cosine"``: the inner product, in [-1, 1]. ``"l2"``: the negative squared distance, <= 0.

    Returns
    -------
    float tensor of shape (..., slot)

    Raises
    ------
    ValueError
        If the feature counts differ or the metric is unknown.
    """
    if features.shape[-1] != slots.shape[-1]:
        raise ValueError(
            f"`features` must have {slots.shape[-1]} features, got {tuple(features.shape)}. "
            f"The slots were built for another backbone; pass feature_dim={features.shape[-1]}."
        )
    if metric == "cosine":
        return normalize(features) @ slots.T
    if metric == "l2":
        squares = features.square().sum(-1, keepdim=True) + slots.square().sum(-1)
        return -(squares - 2 * features @ slots.T).clamp_min(0)  # rounding must not make a distance negative
    raise ValueError(f"`metric` must be 'cosine' or 'l2', got {metric!r}. Choose one of the two.")


def best_view(
    similarities: Float[Tensor, "example view slot"],
) -> tuple[Similarities, Int[Tensor, "example slot"]]:
    """Keep, for each slot, the view of each input that is most similar to it.

    Parameters
    ----------
    similarities : float tensor of shape (example, view, slot)
        Of each view to each slot.

    Returns
    -------
    values : float tensor of shape (example, slot)
    views : int64 tensor of shape (example, slot)
        Ties go to the lowest view.
    """
    values, views = similarities.max(dim=1)
    return values, views
