"""Adam under the one-cycle rate, in a few calls a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_RISING = 0.3  # share of the steps
_START, _END = 25.0, 1e4  # the peak over the first rate, and the first rate over the last
_MOMENTA = 0.95, 0.85  # at the ends and at the peak


class OneCycleAdam:
    """The steps of `torch.optim.Adam` with ``fused=True`` under `torch.optim.lr_scheduler.OneCycleLR`, bit for bit.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
        On CPUs or CUDA devices; changed in place.
    rate : float
        Learning rate at the peak, > 0.
    total_steps : int
        Of the whole training, >= 1.

    Notes
    -----
    Smith and Topin 2018. What surrounds the one kernel in `torch.optim` takes a third of a small network's step; and
    the first optimizer made there imports torch's compiler, which takes seconds.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, total_steps: int) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._peak, self._total = rate, total_steps
        self._state: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}
        self._taken = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for it in self._parameters:
            it.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step; a parameter without a gradient stays."""
        rate, momentum = self.now()
        self._taken += 1
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for it in self._parameters:
            if it.grad is not None:
                groups.setdefault((it.device, it.dtype), []).append(it)
        for group in groups.values():
            means, squares, steps = (list(it) for it in zip(*map(self._of, group), strict=True))
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                group, [it.grad for it in group if it.grad is not None], means, squares, [], steps,
                amsgrad=False, lr=rate, beta1=momentum, beta2=0.999, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip

    def now(self) -> tuple[float, float]:
        """Rate and momentum of the next step: half a cosine up, half a cosine down."""
        first, top = self._peak / _START, float(_RISING * self._total) - 1
        outer, inner = _MOMENTA
        if self._taken <= top:
            share = self._taken / top
            return _cosine(first, self._peak, share), _cosine(outer, inner, share)
        share = (self._taken - top) / (self._total - 1 - top)
        return _cosine(self._peak, first / _END, share), _cosine(inner, outer, share)

    def _of(self, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Running means of the gradient and of its square, and the steps so far."""
        if parameter not in self._state:
            mean, square = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
            self._state[parameter] = mean, square, torch.zeros((), dtype=torch.float32, device=parameter.device)
        return self._state[parameter]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
