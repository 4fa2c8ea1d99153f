"""XAND: each neuron adds its own few inputs, the same for every sample: a sparse AND beside the OR of ExplOR.

``f_j(x) = sum_i m_ij w_ij x_i``, with a mask ``m`` that is made of logits and learned with them.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_count

MASKS: Final = ("sigmoid", "topk", "sparsemax")

INPUTS = 4
"""Inputs that a neuron keeps by default."""


class XAND(nn.Module):
    """A linear layer without offset whose neurons look at few inputs.

    Parameters
    ----------
    in_features, out_features : int
        Number of inputs and of neurons (count, >= 1).
    mask : {"sigmoid", "topk", "sparsemax"}
        ``"sigmoid"``: each input by the sigmoid of its logit. ``"topk"``: the ``inputs`` largest logits count 1, all
        others 0; the gradient is that of the sigmoids, so that others can come in. ``"sparsemax"``: shares that add up
        to ``inputs``, most of them exactly 0.
    inputs : int
        How many inputs a neuron keeps (count, >= 1, at most ``in_features``); ``"sigmoid"`` starts with that many in
        sum.

    Notes
    -----
    The mask does not depend on the input: the layer is linear, its gradient explains its value. ``"topk"`` takes the
    lower of two inputs with equal logits.
    """

    def __init__(self, in_features: int, out_features: int, *, mask: str = "topk", inputs: int = INPUTS) -> None:
        super().__init__()
        _check(mask, inputs, in_features)
        self.mask_name, self.inputs = mask, inputs
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / math.sqrt(inputs))
        self.logits = nn.Parameter(_first_logits(mask, inputs, (out_features, in_features)))

    def mask(self) -> Float[Tensor, "neuron input"]:
        """How much each input counts for each neuron, in [0, 1] (sparsemax: in [0, inputs])."""
        return _mask(self.logits, self.mask_name, self.inputs)

    def forward(self, x: Float[Tensor, "... input"]) -> Float[Tensor, "... neuron"]:
        """The neurons' values."""
        return functional.linear(x, self.mask() * self.weight)


class XANDConv2d(nn.Module):
    """A convolution without offset whose neurons look at few of the inputs in their window.

    Parameters
    ----------
    in_channels, out_channels : int
        (count, >= 1).
    kernel_size : int
        Side of the square window (pixels, >= 1).
    stride, padding, dilation : int
        As in `torch.nn.Conv2d` (pixels).
    mask, inputs
        See `XAND`; ``inputs`` counts channels at positions, at most ``in_channels * kernel_size ** 2``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        mask: str = "topk",
        inputs: int = INPUTS,
    ) -> None:
        super().__init__()
        _check(mask, inputs, in_channels * kernel_size**2)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.mask_name, self.inputs = mask, inputs
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(inputs))
        self.logits = nn.Parameter(_first_logits(mask, inputs, shape))

    def mask(self) -> Float[Tensor, "neuron channel row column"]:
        """How much each input of the window counts for each neuron."""
        return _mask(self.logits.flatten(1), self.mask_name, self.inputs).view_as(self.logits)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the window."""
        kernel = self.mask() * self.weight
        return functional.conv2d(x, kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)


def sparsemax(logits: Float[Tensor, "... input"]) -> Float[Tensor, "... input"]:
    """The point of the simplex nearest to the logits: shares that add up to 1, most of them exactly 0.

    Parameters
    ----------
    logits : float tensor of shape (..., input)
        The last axis is projected; a constant added to all of it changes nothing.

    Returns
    -------
    float tensor of shape (..., input)

    References
    ----------
    Martins, Astudillo: From softmax to sparsemax. ICML 2016, algorithm 1.

    Examples
    --------
    >>> sparsemax(torch.tensor([1.0, 0.8, -1.0]))
    tensor([0.6000, 0.4000, 0.0000])
    """
    ordered = logits.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    counts = torch.arange(1, logits.shape[-1] + 1, device=logits.device, dtype=logits.dtype)
    kept = (ordered * counts > excess).sum(-1, keepdim=True)
    threshold = excess.gather(-1, kept - 1) / kept
    return (logits - threshold).clamp_min(0.0)


def _mask(logits: Float[Tensor, "neuron input"], name: str, inputs: int) -> Float[Tensor, "neuron input"]:
    if name == "sparsemax":
        return inputs * sparsemax(logits / inputs)
    soft = logits.sigmoid()
    if name == "sigmoid":
        return soft
    # A stable sort, since topk leaves open which of two equals it takes.
    chosen = logits.detach().sort(dim=1, descending=True, stable=True).indices[:, :inputs]
    hard = torch.zeros_like(soft).scatter(1, chosen, 1.0)
    return hard + (soft - soft.detach())  # in this order the value is exactly 0 or 1


def _first_logits(mask: str, inputs: int, shape: tuple[int, ...]) -> Tensor:
    """Random ones; those of the sigmoids lie around the level at which ``inputs`` of all are open."""
    logits = 0.5 * torch.randn(shape)
    total = math.prod(shape[1:])
    return logits + math.log(inputs / (total - inputs + 0.5)) if mask == "sigmoid" else logits


def _check(mask: str, inputs: int, most: int) -> None:
    check_choice("mask", mask, MASKS)
    check_count("inputs", inputs)
    if inputs > most:
        raise ValueError(f"`inputs` must be at most {most}, all there are, got {inputs}. Pass fewer.")
