"""Smaller networks with the same outputs: neurons outside of the core are cut out, or masked where they cannot be."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from backbones.base import AbstractBackbone
from backbones.checks import check_choice
from backbones.pruning.ablation import Statistics, find_module, left_as_found
from backbones.pruning.adjacent_layers import Surroundings, surroundings

FILLS: Final = ("zero", "mean")
_TOLERANCE: Final = 1e-4


class Masked(nn.Module):
    """A module whose pruned neurons are constants.

    Parameters
    ----------
    module : nn.Module
        Its output has the shape (batch, neuron, ...); it is computed whole, then overwritten.
    keep : int64 tensor of shape (kept,)
        Neurons that stay.
    constants : float tensor of shape (neuron,)
        What the others give; those of neurons that stay are not looked at.
    """

    kept: Tensor
    constants: Tensor

    def __init__(self, module: nn.Module, keep: Int[Tensor, " kept"], constants: Float[Tensor, " neuron"]) -> None:
        super().__init__()
        self.module = module
        kept = torch.zeros(len(constants), dtype=torch.bool, device=constants.device)
        kept[keep.to(constants.device)] = True
        self.register_buffer("kept", kept)
        self.register_buffer("constants", constants.clone())

    def forward(self, *inputs: Any, **options: Any) -> Float[Tensor, "batch neuron ..."]:
        """The module's output with the constants in it."""
        output: Tensor = self.module(*inputs, **options)
        shape = (1, -1, *(1,) * (output.ndim - 2))
        return torch.where(self.kept.view(shape), output, self.constants.to(output.dtype).view(shape))


@dataclass(frozen=True)
class Compression:
    """A pruned copy of a model, and what could and could not be cut out of it.

    Parameters
    ----------
    model : nn.Module
        A copy; the one it came from is untouched.
    removed : dict of str to int
        Layer and number of neurons that are really gone.
    masked : dict of str to str
        Layer and why its neurons could not be cut out; they are constants then, and cost what they cost before.
    parameters_before, parameters_after : int
        Weights of the model it came from, and of this one (count).
    """

    model: nn.Module
    removed: dict[str, int]
    masked: dict[str, str]
    parameters_before: int
    parameters_after: int


def compress(
    model: nn.Module,
    layers: Mapping[str, Int[Tensor, " kept"]],
    x: Float[Tensor, "batch ..."],
    *,
    fill: str = "zero",
    statistics: Mapping[str, Statistics] | None = None,
) -> Compression:
    """Prune a network: remove the neurons of some layers that are not to be kept.

    Parameters
    ----------
    model : nn.Module
        From inputs to logits; not changed, the smaller one is a copy.
    layers : mapping of str to int64 tensor of shape (kept,)
        Name of each layer and the neurons that stay, at least one; for example ``{"1": report.core("1").neurons}``.
    x : float tensor of shape (batch, ...)
        Some inputs, on which the smaller model must give what the masked one gives.
    fill : {"zero", "mean"}
        What is put for neurons that go: 0, or their mean, which moves into the biases of the layer that follows.
    statistics : mapping of str to Statistics, optional
        For ``fill="mean"``: those of each layer.

    Returns
    -------
    Compression

    Raises
    ------
    ValueError
        If a layer is not there, nothing or something that is not there is to be kept, or statistics are missing.

    Notes
    -----
    Neurons are cut out of ``nn.Linear`` and ``nn.Conv2d`` (one group) and the batch normalisations between, when the
    layer feeds one of these two. Whether the cut changes the outputs is tried on ``x`` (in evaluation, 1e-4 of the
    largest output); if it does, as with a side branch, the layer is masked. A convolution with zero padding cannot take
    means into its bias, since there are none beyond the border.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> compress(net, {"1": torch.tensor([0, 5])}, torch.rand(3, 4)).model[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    check_choice("fill", fill, FILLS)
    result = copy.deepcopy(model)
    removed, masked = {}, {}
    for layer, chosen in layers.items():
        place = surroundings(result, layer, x)
        keep = _check_kept(chosen, place.width)
        constants = _constants(layer, place.width, fill, statistics).to(x.device)
        mask_model = _with_mask(result, layer, keep, constants)
        why = _obstacle(result, place, fill)
        if not why:
            smaller = copy.deepcopy(result)
            _cut(smaller, place, keep, constants)
            why = _difference(smaller, mask_model, x)
        if why:
            result, masked[layer] = mask_model, why
        else:
            result, removed[layer] = smaller, place.width - len(keep)
    for module in result.modules():
        if isinstance(module, AbstractBackbone):
            _describe(module)
    return Compression(result, removed, masked, _count(model), _count(result))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_kept(keep: Int[Tensor, " kept"], width: int) -> Int[Tensor, " kept"]:
    kept: Tensor = keep.detach().cpu().unique()
    if len(kept) == 0 or len(kept) != len(keep) or int(kept[0]) < 0 or int(kept[-1]) >= width:
        raise ValueError(
            f"`layers` must give each layer different neurons from 0 to {width - 1}, got {keep.tolist()}. "
            "Keep at least one."
        )
    return kept


def _constants(
    layer: str, width: int, fill: str, statistics: Mapping[str, Statistics] | None
) -> Float[Tensor, " neuron"]:
    if fill == "zero":
        return torch.zeros(width)
    if statistics is None or layer not in statistics:
        raise ValueError(
            f"`statistics` must hold {layer!r} for fill='mean', got {sorted(statistics or {})}. "
            "Make them with running_statistics."
        )
    return statistics[layer].mean


def _with_mask(model: nn.Module, layer: str, keep: Tensor, constants: Tensor) -> nn.Module:
    result = copy.deepcopy(model)
    mask = Masked(find_module(result, layer), keep, constants)
    mask.train(mask.module.training)
    result.set_submodule(layer, mask)
    return result


def _obstacle(model: nn.Module, place: Surroundings, fill: str) -> str:
    """Why a layer cannot be cut; empty if it can be tried."""
    for role, name in (("made", place.producer), ("taken", place.consumer)):
        module = model.get_submodule(name) if name else None
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            kind = type(module).__name__ if name else "nothing"
            return f"its neurons are {role} by {kind}; only Linear and Conv2d are cut"
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            return f"its neurons are {role} by a convolution in {module.groups} groups"
    consumer = model.get_submodule(place.consumer)
    if fill == "mean" and isinstance(consumer, nn.Conv2d) and any(consumer._reversed_padding_repeated_twice):  # noqa: SLF001
        return "means cannot move into the bias of a convolution with padding"
    if place.later:
        return f"{place.later[0]} comes between the neurons and the layer that takes them"
    return ""


def _cut(model: nn.Module, place: Surroundings, keep: Tensor, constants: Tensor) -> None:
    """Slice the producer's rows, the normalisations, and the consumer's columns, in place."""
    producer, consumer = model.get_submodule(place.producer), model.get_submodule(place.consumer)
    _slice(producer, ("weight", "bias"), keep, place.width)
    _resize(producer, ("out_features", "out_channels"), len(keep))
    for name in place.norms:
        norm = model.get_submodule(name)
        for part in norm.modules():
            _slice(part, ("weight", "bias", "running_mean", "running_var"), keep, place.width)
            _resize(part, ("num_features", "num_channels"), len(keep))
    weight: Tensor = consumer.weight  # type: ignore[assignment]
    blocks = weight.detach().unflatten(1, (place.width, -1))
    lost = torch.ones(place.width, dtype=torch.bool)
    lost[keep] = False
    if constants.any():
        moved = (blocks[:, lost].flatten(2).sum(2) @ constants[lost].to(weight.dtype)).detach()
        held = consumer.bias if isinstance(consumer.bias, Tensor) else torch.zeros_like(moved)
        consumer.bias = nn.Parameter(held.detach() + moved)
    consumer.weight = nn.Parameter(blocks[:, keep].flatten(1, 2).clone(), requires_grad=weight.requires_grad)
    _resize(consumer, ("in_features", "in_channels"), consumer.weight.shape[1])


def _slice(module: nn.Module, names: tuple[str, ...], keep: Tensor, width: int) -> None:
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, Tensor) and value.ndim and len(value) == width:
            part = value.detach()[keep].clone()
            if isinstance(value, nn.Parameter):
                part = nn.Parameter(part, requires_grad=value.requires_grad)
            setattr(module, name, part)


def _resize(module: nn.Module, names: tuple[str, ...], size: int) -> None:
    for name in names:
        if hasattr(module, name):
            setattr(module, name, size)


def _difference(smaller: nn.Module, masked: nn.Module, x: Tensor) -> str:
    """Empty if both give the same outputs, else what is wrong."""
    with left_as_found(smaller), left_as_found(masked), torch.no_grad():
        expected = masked.eval()(x)
        try:
            found = smaller.eval()(x)
        except (RuntimeError, ValueError) as error:
            return f"without them a later layer does not fit: {str(error).splitlines()[0]}"
    limit = _TOLERANCE * max(1.0, float(expected.abs().max()))
    if found.shape != expected.shape or float((found - expected).abs().max()) > limit:
        return "without them the outputs change: the network is no plain chain here"
    return ""


def _describe(backbone: AbstractBackbone) -> None:
    """Let a `positive` say its new widths, so that it can be rebuilt and loaded."""
    if backbone.name != "positive":
        return
    convolutions: Any = [*backbone.positive]  # type: ignore[misc]
    if backbone.options["first"] != "whitening":  # whose width the inputs set
        convolutions.insert(0, backbone.first)
    widths = [getattr(layer, "out_channels", 0) for layer in convolutions]
    if all(widths):
        backbone.options = {**backbone.options, "widths": widths}
        backbone.feature_dim = widths[-1]
