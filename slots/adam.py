"""Adam for one tensor."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """The steps of `torch.optim.Adam` on one tensor, bit for bit on a CPU.

    Parameters
    ----------
    parameter : float tensor
        Changed in place.

    Attributes
    ----------
    mean, square : float tensor
        Running means of the gradient and of its square, of the parameter's shape.
    steps : int
        Taken so far.

    Notes
    -----
    Kingma and Ba 2015, algorithm 1, with their constants. `torch.optim` imports torch's compiler the first time that an
    optimizer is made: two to three seconds, longer than an update takes.
    """

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: float) -> None:
        """One step.

        Parameters
        ----------
        gradient : float tensor
            Of the loss, with the shape of the parameter.
        rate : float
            Learning rate of this step, >= 0.
        """
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        bias, root = 1 - 0.9**self.steps, (1 - 0.999**self.steps) ** 0.5
        self._parameter.addcdiv_(self.mean, (self.square.sqrt() / root).add_(1e-8), value=-rate / bias)
