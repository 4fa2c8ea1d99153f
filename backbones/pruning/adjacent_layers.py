"""What stands around a layer's neurons: who makes them, who normalises them, who takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.pruning.ablation import find_module, left_as_found


@dataclass(frozen=True)
class Surroundings:
    """The modules around a layer, in the order of one forward pass.

    Parameters
    ----------
    layer : str
        The module whose output holds the neurons.
    width : int
        Their number.
    producer : str
        Last module with weights up to the layer; empty if there is none.
    norms : tuple of str
        Modules with one weight a neuron between the producer and the layer, the layer included.
    later : tuple of str
        The same between the layer and the consumer.
    consumer : str
        First module with weights after the layer; empty if there is none.
    after : tuple of str
        All modules that finish after the layer, in order.
    """

    layer: str
    width: int
    producer: str
    norms: tuple[str, ...]
    later: tuple[str, ...]
    consumer: str
    after: tuple[str, ...]


def surroundings(model: nn.Module, layer: str, x: Float[Tensor, "batch ..."]) -> Surroundings:
    """See which modules a layer's neurons come from and go to.

    Parameters
    ----------
    model : nn.Module
        Used in evaluation, and left as found.
    layer : str
        Name of the module, as `torch.nn.Module.named_modules` gives it.
    x : float tensor of shape (batch, ...)
        Any inputs.

    Returns
    -------
    Surroundings

    Raises
    ------
    ValueError
        If there is no such module, or it does not take part.

    Notes
    -----
    The order of the calls is all that is looked at: side branches are not seen. `backbones.pruning.compress`
    therefore checks what it made.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = surroundings(net, "1", torch.rand(1, 2))
    >>> found.producer, found.consumer
    ('0', '2')
    """
    find_module(model, layer)
    names, calls, widths = {module: name for name, module in model.named_modules()}, [], {}

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        del inputs
        calls.append(names[module])
        widths[names[module]] = output.shape[1] if isinstance(output, Tensor) and output.ndim > 1 else 0

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        with left_as_found(model), torch.no_grad():
            model.eval()
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if layer not in calls:
        raise ValueError(
            f"`layer` must take part in the forward pass, got {layer!r}, which is not called. Name another."
        )
    at = calls.index(layer)
    weighted = [index for index, name in enumerate(calls) if _weights(model.get_submodule(name))]
    made_by = max((index for index in weighted if index <= at), default=-1)
    taken_by = min((index for index in weighted if index > at), default=len(calls))
    single = [index for index, name in enumerate(calls) if _is_norm(model.get_submodule(name))]
    return Surroundings(
        layer,
        widths[layer],
        calls[made_by] if made_by >= 0 else "",
        tuple(calls[index] for index in single if made_by < index <= at),
        tuple(calls[index] for index in single if at < index < taken_by),
        calls[taken_by] if taken_by < len(calls) else "",
        tuple(calls[at + 1 :]),
    )


def _weights(module: nn.Module) -> bool:
    """Whether the module itself has a matrix or a kernel."""
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _is_norm(module: nn.Module) -> bool:
    """Whether the module keeps something for each neuron, without mixing them."""
    held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    within = [*module.children()]
    is_wrapped = bool(within) and all(isinstance(part, nn.BatchNorm2d) for part in within)  # as SiLUBatchNorm
    return is_wrapped or (bool(held) and not _weights(module))
