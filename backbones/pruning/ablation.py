"""Replace some neurons of a layer by noise that looks like them, in any network, and leave it as it was found.

A layer is named by the module whose output holds its neurons on axis 1 (after the activation function, usually).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones.base import modes_kept
from backbones.checks import check_choice

NOISES: Final = ("normal", "permuted")

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of inputs and int64 labels, from something that can be read more than once: a list, a DataLoader."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each neuron's values, which the noise of an ablation is drawn with.

    Parameters
    ----------
    mean, deviation : float tensor of shape (neuron,)
        Over all examples, and all places of a map; the deviation divides by the number of values.
    count : int
        Number of values of a neuron.
    """

    mean: Float[Tensor, " neuron"]
    deviation: Float[Tensor, " neuron"]
    count: int


def check_batches(batches: Any) -> None:
    """Raise a ValueError for batches that could be read once only, or that are none."""
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        raise ValueError(  # noqa: TRY004
            f"`batches` must be readable more than once, got {type(batches).__name__}. Pass a list of (x, y) pairs."
        )
    if not any(True for _ in batches):
        raise ValueError("`batches` must hold at least one batch, got none. Pass a list of (x, y) pairs.")


def find_module(model: nn.Module, layer: str) -> nn.Module:
    """The submodule of that name; an unknown name is refused, with the first ones that there are.

    Raises
    ------
    ValueError
        If the model has none.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if layer not in modules or not layer:
        some = ", ".join([name for name in modules if name][:8])
        raise ValueError(f"`layer` must name a module of the model, got {layer!r}. Its first modules are: {some}.")
    return modules[layer]


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Put back each module's mode and each parameter's gradient, also after an exception."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        with modes_kept(model):
            yield
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the module's output through a function; the hook is gone afterwards, also after an exception."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        del module, inputs
        if not isinstance(output, Tensor) or output.ndim < 2:
            kind = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"`layer` must give a tensor of shape (batch, neuron, ...), got {kind}. Name another module."
            )
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def running_statistics(model: nn.Module, layer: str, batches: Batches) -> Statistics:
    """Mean and deviation of each neuron of a layer, batch by batch.

    Parameters
    ----------
    model : nn.Module
        Used in evaluation, and left as found.
    layer : str
        Name of the module whose output has the shape (batch, neuron, ...).
    batches : iterable of (x, y)
        The labels are not looked at.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        If there is no such module, its output has no neurons, or there are no batches.

    Notes
    -----
    Batches are merged by Chan, Golub and LeVeque's update in float64, which does not lose the digits that the
    difference of two large sums loses.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> running_statistics(net, "1", [(torch.rand(5, 2), torch.zeros(5, dtype=torch.long))]).count
    5
    """
    check_batches(batches)
    merged: list[tuple[Tensor, Tensor, int]] = []

    def merge(output: Tensor) -> Tensor:
        values = output.detach().double().movedim(1, 0).flatten(1)
        mean, squares, count = values.mean(1), values.var(1, correction=0) * values.shape[1], values.shape[1]
        if merged:
            old_mean, old_squares, old_count = merged.pop()
            total, gap = old_count + count, mean - old_mean
            squares = old_squares + squares + gap.square() * old_count * count / total
            mean, count = old_mean + gap * count / total, total
        merged.append((mean, squares, count))
        return output

    with left_as_found(model), hooked(find_module(model, layer), merge), torch.no_grad():
        model.eval()
        for x, _ in batches:
            model(x)
    if not merged:
        raise ValueError(
            f"`layer` must take part in the forward pass, got {layer!r}, which is not called. Name another."
        )
    mean, squares, count = merged[0]
    dtype = next(model.parameters()).dtype
    return Statistics(mean.to(dtype), (squares / count).sqrt().to(dtype), count)


def noise_like(output: Tensor, statistics: Statistics, noise: str, generator: torch.Generator) -> Tensor:
    """Ablation noise: a tensor like a layer's output that knows nothing of the inputs.

    Parameters
    ----------
    output : float tensor of shape (batch, neuron, ...)
        What the layer said; shape, type and device are taken from it.
    statistics : Statistics
        For ``noise="normal"``: independent values of this mean and deviation.
    noise : {"normal", "permuted"}
        ``"permuted"``: each neuron's real values (whole maps), shuffled over the batch, each neuron by itself.
    generator : torch.Generator
        On the CPU, so that all devices get the same noise.

    Returns
    -------
    float tensor of shape (batch, neuron, ...)
    """
    check_choice("noise", noise, NOISES)
    if noise == "normal":
        shape = (1, -1, *(1,) * (output.ndim - 2))
        drawn = torch.randn(output.shape, generator=generator, dtype=output.dtype).to(output.device)
        return statistics.mean.view(shape) + statistics.deviation.view(shape) * drawn
    order = torch.rand(output.shape[:2], generator=generator).argsort(0).to(output.device)
    return output.gather(0, order.view(*order.shape, *(1,) * (output.ndim - 2)).expand_as(output))


@contextmanager
def randomised(
    model: nn.Module,
    layer: str,
    neurons: Bool[Tensor, " neuron"],
    *,
    statistics: Statistics,
    noise: str = "normal",
    seed: int = 0,
    detach: bool = False,
) -> Iterator[None]:
    """Ablation by noise: within the block, some neurons of a layer say nothing about the input.

    Parameters
    ----------
    model : nn.Module
        Used as it stands; a hook on the layer changes its output until the block ends.
    layer : str
        Name of the module whose output has the shape (batch, neuron, ...).
    neurons : bool tensor of shape (neuron,)
        True: replaced by noise.
    statistics : Statistics
        From `running_statistics`.
    noise : {"normal", "permuted"}
        See `noise_like`.
    seed : int
        Equal seeds give equal noise for batches in equal order, whatever neurons are replaced.
    detach : bool
        Let no gradient pass to what lies before the layer.

    Raises
    ------
    ValueError
        If the number of neurons is not the layer's, or as `noise_like`.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.rand(5, 2)
    >>> known = running_statistics(net, "1", [(x, torch.zeros(5, dtype=torch.long))])
    >>> with randomised(net, "1", torch.tensor([True, False, False]), statistics=known):
    ...     net(x).shape
    torch.Size([5, 2])
    """
    generator = torch.Generator().manual_seed(seed)

    def replace(output: Tensor) -> Tensor:
        if neurons.shape != output.shape[1:2]:
            raise ValueError(
                f"`neurons` must have shape ({output.shape[1]},), got {tuple(neurons.shape)}. "
                "Give one truth value for each neuron of the layer."
            )
        source = output.detach() if detach else output
        mask = neurons.to(output.device).view(1, -1, *(1,) * (output.ndim - 2))
        return torch.where(mask, noise_like(output.detach(), statistics, noise, generator), source)

    with hooked(find_module(model, layer), replace):
        yield
