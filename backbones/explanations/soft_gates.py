"""What `pullback` puts behind a value: the same value, with the gradient of something softer."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Softness(Protocol):
    """How softly gates open.

    Attributes
    ----------
    gate : str
        Form of ReLU's gate: ``"normal"`` or ``"logistic"``.
    softness : float
        What all widths and temperatures are multiplied by (> 0).
    """

    gate: str
    softness: float


def openness(z: Tensor, form: str, width: float) -> Tensor:
    """How far a gate is open, between 0 and 1, for its input: ``Phi(z / width)`` or ``sigmoid(z / width)``."""
    return torch.special.ndtr(z / width) if form == "normal" else torch.sigmoid(z / width)


class _Gated(torch.autograd.Function):
    """Gives a value that was computed before; the gradient is multiplied by a gate, where there is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: list[Tensor], gate: Tensor | None) -> Tensor:
        ctx.is_gated = gate is not None
        ctx.save_for_backward(*([] if gate is None else [gate]))
        ctx.dtype = x.dtype
        return value[0]  # inside a list autograd does not take it for an input

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return (gradient * ctx.saved_tensors[0] if ctx.is_gated else gradient).to(ctx.dtype), None, None


def gated(x: Tensor, value: Tensor, gate: Tensor | None) -> Tensor:
    """``value``, whose gradient is ``gate`` times the one that arrives; None: the one that arrives.

    Parameters
    ----------
    x : tensor
        What the gradient goes to.
    value : tensor of the same shape, without gradient
        What comes out, and nothing else.
    gate : tensor of the same shape, optional
        Factor of the gradient, in [0, 1] for a gate; None stands for 1.
    """
    result: Tensor = _Gated.apply(x, [value], gate)
    return result


def layer_norm(  # noqa: PLR0917 as torch passes them
    x: Tensor, value: Tensor, axes: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Layer normalisation over the last ``axes`` axes, with the gradient for given mean and variance."""
    dims = tuple(range(-axes, 0))
    held = x.detach()
    mean = held.mean(dims, keepdim=True)
    inverse = torch.rsqrt(held.var(dims, correction=0, keepdim=True) + eps)
    soft = (x - mean) * inverse
    soft = soft if weight is None else soft * weight
    soft = soft if bias is None else soft + bias
    return gated(soft.to(value.dtype), value, None)


def attention(  # noqa: PLR0917
    result: Tensor,
    temperature: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001 a gradient does not drop
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "... query feature"]:
    """Attention's ``result``, with the gradient of its softened weights, taken as given, times the values.

    The arguments after ``temperature`` are those of `torch.nn.functional.scaled_dot_product_attention`.
    """
    with torch.no_grad():
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale) / temperature
        if is_causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~allowed, -math.inf)
        if attn_mask is not None:
            is_kept = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if is_kept else scores + attn_mask / temperature
        weights = torch.softmax(scores, -1).nan_to_num(0.0)  # a query that may look nowhere
    if enable_gqa:
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return gated((weights @ value).to(result.dtype), result, None)
