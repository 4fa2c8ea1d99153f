"""What a unit is made of and what it is used for: edges before it, edges after it, and a filter written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import evaluating
from backbones.explanations.circuits.nulls import Result, against
from backbones.explanations.circuits.stimuli import standard
from backbones.explanations.circuits.units import BATCH, Unit, find_layer, listening, outputs

ENOUGH: Final = 0.9
"""Share of a unit's variance that its kept edges explain."""

_PICTURES: Final = 4  # a layer with at most so many inputs looks at colours: its edges are places
_FEWEST_LATER: Final = 5


@dataclass(frozen=True)
class Edges:
    """What each edge adds to a unit, for each input at one place.

    Parameters
    ----------
    added : float tensor of shape (sample, edge)
        Their sum and ``bias`` are what the unit says.
    bias : float
        Of the unit.
    sources : int64 array of shape (edge,)
        Input channel or feature of each edge.
    taps : int64 array of shape (edge,)
        Place in the kernel, where the layer looks at a picture itself; -1 where an edge is a whole kernel.
    """

    added: Float[Tensor, "sample edge"]
    bias: float
    sources: Int[np.ndarray, " edge"]
    taps: Int[np.ndarray, " edge"]

    @property
    def total(self) -> Float[Tensor, " sample"]:
        """What the unit says."""
        return self.added.sum(1) + self.bias


@dataclass(frozen=True)
class Implementation:
    """How few edges make a unit.

    Parameters
    ----------
    found : Result
        Correlation of the kept edges' sum with the unit on images that did not choose them; null: as many at random.
    kept : int64 array of shape (kept edge,)
        Edges in the order in which they explain the unit.
    n_edges : int
        All of them (count).
    """

    found: Result
    kept: Int[np.ndarray, " kept"]
    n_edges: int


def weighted(model: nn.Module, layer: str) -> nn.Conv2d | nn.Linear:
    """The layer, if it is a convolution or a linear map.

    Raises
    ------
    ValueError
        If it is something else, whose units have no weights of their own.
    """
    module = find_layer(model, layer)
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        raise ValueError(  # noqa: TRY004  # a name was given, and it is the wrong one
            f"`layer` must be a Conv2d or Linear to have weights, got {type(module).__name__} for {layer!r}. "
            "Name the layer before it."
        )
    return module


def edges_of(
    model: nn.Module, unit: Unit, x: Float[Tensor, "sample ..."], at: Int[Tensor, " sample"] | None = None
) -> Edges:
    """What each edge adds to a unit of a convolution or linear layer.

    Parameters
    ----------
    model : nn.Module
        Any network; run in evaluation mode.
    unit : Unit
        Of a `Conv2d` or `Linear` layer.
    x : float tensor of shape (sample, ...)
        Inputs.
    at : int64 tensor of shape (sample,), optional
        Place of each, in the flattened grid. Default: where the unit is largest.

    Returns
    -------
    Edges
        An edge is a kernel on one input channel, or a single weight where the layer has at most 4 input channels (it
        looks at a picture) or no places.

    Raises
    ------
    ValueError
        If the layer has no weights of its own.
    """
    module = weighted(model, unit.layer)
    heard: list[tuple[Tensor, Tensor]] = []

    def hear(inputs: tuple[Any, ...], output: Tensor) -> None:
        heard.append((inputs[0], output))

    added = []
    with evaluating(model), torch.no_grad(), listening(module, hear):
        for start in range(0, len(x), BATCH):
            heard.clear()
            model(x[start : start + BATCH])
            inputs, output = heard[-1]
            chosen = None if at is None else at[start : start + BATCH]
            added.append(_added(module, unit.index, inputs, output, chosen))
    bias = 0.0 if module.bias is None else float(module.bias[unit.index].detach())
    n = added[0].shape[1]
    if isinstance(module, nn.Linear):
        return Edges(torch.cat(added), bias, np.arange(n), np.full(n, -1))
    taps = module.kernel_size[0] * module.kernel_size[1] if _looks_at_pictures(module) else 1
    first = group_of(module, unit.index) * module.weight.shape[1]
    places = np.arange(n) % taps if taps > 1 else np.full(n, -1)
    return Edges(torch.cat(added), bias, first + np.arange(n) // taps, places)


def _looks_at_pictures(module: nn.Conv2d) -> bool:
    return module.weight.shape[1] <= _PICTURES


def group_of(module: nn.Conv2d, index: int) -> int:
    """Which group of channels a unit takes."""
    return index // (module.out_channels // module.groups)


def _added(
    module: nn.Conv2d | nn.Linear, index: int, inputs: Tensor, output: Tensor, at: Tensor | None
) -> Float[Tensor, "sample edge"]:
    """What each edge adds, at one place of each input."""
    weight = module.weight[index]
    if isinstance(module, nn.Linear):
        return inputs * weight
    n = module.weight.shape[1]
    first = group_of(module, index) * n
    kernel = weight[:, None]
    if _looks_at_pictures(module):  # one output for each tap
        flat = weight.flatten(1)
        kernel = torch.diag_embed(flat).reshape(-1, 1, *weight.shape[1:])
    padded = inputs[:, first : first + n]
    padding: Any = module.padding
    if module.padding_mode != "zeros" and not isinstance(padding, str):
        padded, padding = functional.pad(padded, (padding[1],) * 2 + (padding[0],) * 2, module.padding_mode), 0
    maps = functional.conv2d(padded, kernel, None, module.stride, padding, module.dilation, n).flatten(2)
    place = output[:, index].flatten(1).argmax(1) if at is None else at
    return maps.gather(2, place[:, None, None].expand(-1, maps.shape[1], 1)).squeeze(2)


def implementation(edges: Edges, *, permutations: int = 199, seed: int = 0) -> Implementation:
    """How few edges explain a unit, and whether they do so on other images.

    Parameters
    ----------
    edges : Edges
        Of a unit, for 8 or more inputs.
    permutations : int, default 199
        Draws of the null: as many edges at random (count, >= 1).
    seed : int, default 0
        Of halves and draws.

    Returns
    -------
    Implementation
        Edges are taken in the order of their covariance with the unit until their sum explains 90 % of its variance,
        on one half of the inputs; the correlation is that of the other half.

    Raises
    ------
    ValueError
        If the unit does not vary.
    """
    added = edges.added.double().cpu().numpy()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(added))
    chosen_on, tested_on = (part - part.mean(0) for part in (added[order[::2]], added[order[1::2]]))
    total = chosen_on.sum(1)
    if not np.square(total).sum() or not np.square(tested_on.sum(1)).sum():
        raise ValueError("The unit must vary with the inputs, got one value for all. A dead unit is made of nothing.")
    ranked = np.argsort(-(chosen_on * total[:, None]).sum(0), kind="stable")
    left = np.square(total[:, None] - chosen_on[:, ranked].cumsum(1)).sum(0) / np.square(total).sum()
    count = 1 + int(np.argmax(left <= 1 - ENOUGH + 1e-9))
    whole = standard(tested_on.sum(1)[None])[0]

    def explains(kept: Int[np.ndarray, " kept"]) -> float:
        return float(standard(tested_on[:, kept].sum(1)[None])[0] @ whole)

    n = added.shape[1]
    null = [explains(generator.choice(n, count, replace=False)) for _ in range(permutations)]
    return Implementation(against(explains(ranked[:count]), null), ranked[:count], n)


def later_layer(model: nn.Module, layer: str, x: Float[Tensor, "sample ..."]) -> str | None:
    """The next convolution or linear layer that is called after a layer and takes as many channels as it has units.

    Parameters
    ----------
    model, layer
        See `record`.
    x : float tensor of shape (sample, ...)
        At least one input.

    Returns
    -------
    str or None
        None where there is none.
    """
    called = called_layers(model, x, layer)
    with evaluating(model), torch.no_grad():
        n_units = outputs(model, layer, x[:1]).shape[1]
    for name in called[called.index(layer) + 1 :] if layer in called else []:
        found = find_layer(model, name)
        if isinstance(found, nn.Conv2d) and found.in_channels == n_units and found.groups == 1:
            return name
        if isinstance(found, nn.Linear) and found.in_features % n_units == 0:
            return name
    return None


def called_layers(model: nn.Module, x: Float[Tensor, "sample ..."], *others: str) -> list[str]:
    """Names of convolutions and linear layers, and of other modules that are named, in the order they are called.

    Parameters
    ----------
    model, x
        See `later_layer`.
    *others : str
        Names of further modules.
    """
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
        if name in others or isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    return called


def use_by_later_units(
    model: nn.Module,
    unit: Unit,
    x: Float[Tensor, "sample ..."],
    later: str,
    *,
    permutations: int = 199,
    seed: int = 0,
) -> Result:
    """Whether knocking a unit out changes those later units most that have large weights on it.

    Parameters
    ----------
    model : nn.Module
        Any network; run in evaluation mode.
    unit : Unit
        To knock out: its mean over all inputs and places stands in its place.
    x : float tensor of shape (sample, ...)
        Inputs.
    later : str
        As `later_layer` finds it.
    permutations : int, default 199
        Draws of the null, in which the weights are shuffled among the later units (count, >= 1).
    seed : int, default 0
        Of the shuffles.

    Returns
    -------
    Result
        The statistic is Spearman's correlation between the norm of each later unit's weights on this one and the root
        mean square of what the knock-out changes in it.

    Raises
    ------
    ValueError
        If there are fewer than 5 later units, or the knock-out changes nothing.
    """
    weight = weighted(model, later).weight.detach()
    if len(weight) < _FEWEST_LATER:
        raise ValueError(f"`later` must have at least {_FEWEST_LATER} units, got {len(weight)}. Ranks need more.")
    module = find_layer(model, unit.layer)
    with evaluating(model), torch.no_grad():
        maps = [outputs(model, unit.layer, part) for part in x.split(BATCH)]
        mean = torch.cat([it[:, unit.index] for it in maps]).mean()

        def knock_out(_: tuple[Any, ...], output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, unit.index] = mean
            return changed

        effect = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        for part in x.split(BATCH):
            before = outputs(model, later, part)
            with listening(module, knock_out):
                after = outputs(model, later, part)
            effect += (after - before).double().square().sum((0, 2, 3))
    sizes = weight.reshape(len(weight), maps[0].shape[1], -1)[:, unit.index].norm(dim=1)
    if not effect.any():
        raise ValueError("Knocking the unit out must change something later, got no change. A dead unit has no use.")
    ranks = standard(np.stack([rankdata(it.double().cpu().numpy()) for it in (sizes, effect)]))
    generator = np.random.default_rng(seed)
    null = [float(generator.permutation(ranks[0]) @ ranks[1]) for _ in range(permutations)]
    return against(float(ranks[0] @ ranks[1]), null)
