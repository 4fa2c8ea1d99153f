"""A unit written by hand: its kernels replaced by sums of a few shapes that a person would draw."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import evaluating
from backbones.explanations.circuits.nulls import Result, against
from backbones.explanations.circuits.stimuli import standard
from backbones.explanations.circuits.units import Unit, listening
from backbones.explanations.circuits.weights import group_of, weighted

_SHAPES: Final = 6
_FEW: Final = 16  # inputs at once whose windows are laid out


def by_hand(height: int, width: int) -> Float[np.ndarray, "tap shape"]:
    """Six shapes that a person would write: a Gaussian blob and its first and second derivatives, made orthonormal."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = (y - (height - 1) / 2) / (height / 3), (x - (width - 1) / 2) / (width / 3)
    blob = np.exp(-(x**2 + y**2) / 2)
    shapes = [blob, x * blob, y * blob, (x**2 - 1) * blob, (y**2 - 1) * blob, x * y * blob]
    basis: Float[np.ndarray, "tap shape"] = np.linalg.qr(np.stack([it.ravel() for it in shapes], 1))[0]
    return basis


def handwritten(
    model: nn.Module,
    unit: Unit,
    x: Float[Tensor, "sample ..."],
    at: Int[Tensor, " sample"],
    *,
    permutations: int = 199,
    seed: int = 0,
) -> Result:
    """Whether a unit whose kernels are written by six shapes says what the unit says.

    Parameters
    ----------
    model : nn.Module
        Any network; run in evaluation mode.
    unit : Unit
        Of a `Conv2d` layer.
    x : float tensor of shape (sample, ...)
        Inputs.
    at : int64 tensor of shape (sample,)
        Place of each, in the flattened grid.
    permutations : int, default 199
        Draws of the null, in which six random shapes stand in place of those of `by_hand` (count, >= 1).
    seed : int, default 0
        Of the shapes.

    Returns
    -------
    Result
        Correlation of the unit with its replacement, in which each kernel is the nearest sum of the six shapes.

    Raises
    ------
    ValueError
        If the layer is no convolution, its kernels have 6 or fewer taps, or the unit does not vary.
    """
    module = weighted(model, unit.layer)
    if not isinstance(module, nn.Conv2d) or module.kernel_size[0] * module.kernel_size[1] <= _SHAPES:
        raise ValueError("Its weights have no shape to write by hand: kernels of 3 x 3 or more have one.")
    seen = _windows(model, unit, x, at)
    weight = module.weight.detach()[unit.index].flatten(1).double().cpu().numpy()
    generator = np.random.default_rng(seed)
    whole = standard(np.einsum("sct,ct->s", seen, weight)[None])[0]
    if not whole.any():
        raise ValueError("The unit must vary with the inputs, got one value for all. A dead unit needs no replacement.")

    def replaced(basis: Float[np.ndarray, "tap shape"]) -> float:
        said = np.einsum("sct,ct->s", seen, weight @ basis @ basis.T)
        return float(standard(said[None])[0] @ whole)

    drawn = [np.linalg.qr(generator.normal(size=(weight.shape[1], _SHAPES)))[0] for _ in range(permutations)]
    return against(replaced(by_hand(*module.kernel_size)), [replaced(it) for it in drawn])


def handwritten_layer(model: nn.Module, layer: str) -> nn.Module:
    """A copy of a network in which all kernels of a convolution are written by the six shapes of `by_hand`.

    Parameters
    ----------
    model : nn.Module
        Stays as it is.
    layer : str
        Name of a `Conv2d`.

    Returns
    -------
    nn.Module
        How much of its accuracy is left says how much of the layer the shapes are.

    Raises
    ------
    ValueError
        If the layer is no convolution.
    """
    other = copy.deepcopy(model)
    module = weighted(other, layer)
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"`layer` must be a Conv2d to be written by hand, got a Linear for {layer!r}.")  # noqa: TRY004
    basis = torch.from_numpy(by_hand(*module.kernel_size)).to(module.weight)
    with torch.no_grad():
        module.weight.copy_((module.weight.flatten(2) @ basis @ basis.T).view_as(module.weight))
    return other


def _windows(
    model: nn.Module, unit: Unit, x: Float[Tensor, "sample ..."], at: Int[Tensor, " sample"]
) -> Float[np.ndarray, "sample channel tap"]:
    """What a convolution's unit sees of its inputs at one place each."""
    module: Any = weighted(model, unit.layer)
    first = group_of(module, unit.index) * module.weight.shape[1]
    heard: list[Tensor] = []
    seen = []
    with evaluating(model), torch.no_grad(), listening(module, lambda inputs, _: heard.append(inputs[0])):
        for part, places in zip(x.split(_FEW), at.split(_FEW), strict=True):
            model(part)
            maps = heard.pop()[:, first : first + module.weight.shape[1]]
            (top, left), dilation, kernel = _padding(module), module.dilation, module.kernel_size
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            padded = functional.pad(maps, (left, left, top, top), mode)
            columns = functional.unfold(padded, kernel, dilation, 0, module.stride)
            chosen = columns.gather(2, places[:, None, None].expand(-1, columns.shape[1], 1)).squeeze(2)
            seen.append(chosen.view(len(part), module.weight.shape[1], -1))
    return torch.cat(seen).double().cpu().numpy()


def _padding(module: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns of padding on each side."""
    if isinstance(module.padding, str):
        share = 0 if module.padding == "valid" else 1
        spans = [share * d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return spans[0], spans[1]
    return int(module.padding[0]), int(module.padding[1])
