"""The Gradient Representation Property: a unit's value is the inner product of its gradient with the input.

``f(x) = <grad f(x), x>`` holds exactly for positively homogeneous maps of degree one (Euler): bias-free nets of
linear, ReLU, average and max pooling layers. Then the gradient *is* the unit's input template: it explains the whole
value. A layer whose weights depend on the input, ``y = A(x) x``, keeps it when ``A`` does not change with the input's
scale, or when the gradient treats ``A`` as given. `detached_gates` asks for the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.checks import check_inputs


class AbstractGatedLayer(nn.Module):
    """A layer ``y = A(x) x`` whose gradient can treat ``A`` as given.

    Attributes
    ----------
    hold_gate : bool
        Set by `detached_gates`: no gradient flows through ``A`` while it is true. The value is the same either way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hold_gate = False


@contextmanager
def detached_gates(model: nn.Module) -> Iterator[None]:
    """Within the block no gradient flows through the gates of the model's layers; values are unchanged.

    Parameters
    ----------
    model : nn.Module
        Its gated layers are told by their class (`AbstractGatedLayer`), at any depth; others stay as they are.

    Examples
    --------
    >>> import torch, backbones
    >>> model = backbones.build("explor", input_shape=(1, 8, 8)).eval()
    >>> x = torch.rand(2, 1, 8, 8)
    >>> with backbones.detached_gates(model):
    ...     bool(backbones.grp_gap(model, x).relative < 1e-4)
    True
    """
    layers = [module for module in model.modules() if isinstance(module, AbstractGatedLayer)]
    before = [layer.hold_gate for layer in layers]
    for layer in layers:
        layer.hold_gate = True
    try:
        yield
    finally:
        for layer, held in zip(layers, before, strict=True):
            layer.hold_gate = held


@dataclass(frozen=True)
class GrpGap:
    """How much of the features the gradients leave unexplained.

    Parameters
    ----------
    relative : float
        ``max |f_j - <grad f_j, x>| / max |f|`` over the batch and the units; about 1e-15 in float64 where the
        property holds, of order 1 where it does not. 0 when all features and gaps are 0.
    unexplained : float tensor of shape (feature,)
        For each unit ``sum |f_j - <grad f_j, x>| / sum |f_j|`` over the batch: the share of its value that the input
        does not explain; 0 for a unit that is 0 and is explained, inf for one that is 0 and is not.
    """

    relative: float
    unexplained: Float[Tensor, " feature"]


def grp_gap(
    model: Callable[[Tensor], Tensor], x: Float[Tensor, "batch ..."], *, max_units: int | None = None
) -> GrpGap:
    """Measure how far a model is from ``f(x) = <grad f(x), x>``.

    Parameters
    ----------
    model : callable
        Maps (batch, ...) to (batch, feature), each row from its own input only (put modules in evaluation mode).
    x : float tensor of shape (batch, ...)
        The inputs that the model sees: a mean subtracted inside the model breaks the property. Use float64 for a proof.
    max_units : int, optional
        Look at the first units only (count, >= 1). Default: all. One backward pass a unit.

    Returns
    -------
    GrpGap

    Raises
    ------
    ValueError
        If the batch is empty or `max_units` is below 1.
    """
    check_inputs(x)
    if max_units is not None and max_units < 1:
        raise ValueError(f"`max_units` must be at least 1, got {max_units}. Leave it out to look at all units.")
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        values = model(leaf)[:, :max_units]
        # Rows do not depend on each other, so the gradient of a column's sum holds each row's own gradient.
        gradients = (torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0] for column in values.unbind(1))
        explained = torch.stack([(gradient * leaf.detach()).flatten(1).sum(1) for gradient in gradients], dim=1)
    values = values.detach()
    gap = (values - explained).abs()
    largest = values.abs().max().item()
    relative = gap.max().item() / largest if largest > 0 else float(gap.max().item() > 0)
    total = values.abs().sum(0)
    unexplained = torch.where(gap.sum(0) == 0, torch.zeros_like(total), gap.sum(0) / total)
    return GrpGap(relative=relative, unexplained=unexplained)
