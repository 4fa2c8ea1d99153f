"""Muon: steps for filters and matrices whose directions all have the same length.

The momentum of a matrix is replaced by the nearest matrix with orthogonal rows (or columns), so directions in which
gradients are small are learned as fast as those in which they are large. Convolutional backbones need a third of the
epochs that AdamW needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan et al.: they push small singular values up as fast as possible, and none above about 1.2."""

_STEPS: Final = 3


def orthogonalize(matrix: Float[Tensor, "row column"], steps: int = _STEPS) -> Float[Tensor, "row column"]:
    """A matrix with the singular vectors of another, and singular values near 1.

    Parameters
    ----------
    matrix : float tensor of shape (row, column)
        Finite, of any norm.
    steps : int, default 3
        Iterations of Newton and Schulz (count, >= 0). After 3 of them singular values from 3 % of the Frobenius norm
        upwards lie between 0.68 and 1.21.

    Returns
    -------
    float tensor of shape (row, column)
        Zero for a zero matrix.

    Notes
    -----
    ``X <- a X + (b X X' + c (X X')^2) X`` from the matrix over its Frobenius norm.

    References
    ----------
    Jordan et al.: Muon, an optimizer for hidden layers in neural networks. 2024.
    """
    a, b, c = _QUINTIC
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp_min(1e-12)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum on parameters of two and more axes, whose norm stays what it was at the start.

    Parameters
    ----------
    params : iterable of parameters or of groups
        Each with at least two axes; the first is the output, all others count as one.
    lr : float
        Length of a step relative to the parameter's norm (> 0).
    momentum : float in [0, 1)
        Share of the past gradients' sum that stays in the next one.

    Notes
    -----
    With the flattened gradient ``G`` and the momentum ``B <- m B + G``, the step is along
    ``O = orthogonalize(G + m B)``: ``W <- s (W - lr |W_0| / sqrt(rank) O)``, where ``s`` brings the norm of ``W`` back
    to that of the first weights ``W_0``. Where a normalisation follows, as in all nets of `backbones`, the norm of a
    filter has no say in the output; holding it makes the learning rate mean the same in all layers.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.2, momentum: float = 0.6) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(
                        f"`params` must have two or more axes, got shape {tuple(parameter.shape)}. "
                        "Give vectors to another optimiser."
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; a parameter without a gradient stays."""
        if closure is not None:
            raise ValueError("`closure` must be left out, got one. Muon looks at each gradient once.")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["momentum"])

    def _move(self, parameter: nn.Parameter, lr: float, momentum: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"], state["norm"] = torch.zeros_like(parameter), parameter.norm()
        gradient: Any = parameter.grad
        buffer = state["momentum"].mul_(momentum).add_(gradient)
        flat = gradient.add(buffer, alpha=momentum).flatten(1)
        step = orthogonalize(flat).reshape(parameter.shape)
        parameter.sub_(step * (lr * state["norm"] / math.sqrt(min(flat.shape))))
        parameter.mul_(state["norm"] / parameter.norm().clamp_min(1e-12))


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights that Muon is for: those of convolutions and linear layers that learn, one-row ones left out."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    weights: list[Any] = [layer.weight for layer in module.modules() if isinstance(layer, kinds)]
    return [weight for weight in weights if weight.requires_grad and min(weight.flatten(1).shape) > 1]
