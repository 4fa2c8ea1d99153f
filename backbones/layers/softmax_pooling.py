"""`SoftMaxPool`: a differentiable maximum over groups or windows; and `Mean`, `Scale`, which stand beside it.

``a = softmax(x / tau)``, ``y = sum a_i x_i``. For tau -> 0 that is the maximum, for tau -> inf the mean.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_count
from backbones.grp import AbstractGatedLayer

GRADS: Final = ("full", "detach")
KINDS: Final = ("softmax", "mellowmax")
FORWARDS: Final = ("soft", "hard")


def softmax_pool(
    x: Float[Tensor, "*group member"], *, tau: float, grad: str = "full", kind: str = "softmax"
) -> Float[Tensor, "*group"]:
    """Pool the last axis.

    Parameters
    ----------
    x : float tensor of shape (..., member)
        Members that are ``-inf`` take no part; where all are, the value is ``-inf``.
    tau : float
        Temperature in units of ``x``, > 0.
    grad : {"full", "detach"}
        Whether the gradient flows through the weights ``a``.
    kind : {"softmax", "mellowmax"}
        ``"mellowmax"``: ``tau * logsumexp(x / tau) - tau * log(n)`` of the ``n`` members that take part.

    Returns
    -------
    float tensor of shape (...)

    Notes
    -----
    ``dy/dx_i = a_i (1 + (x_i - y) / tau)``: members more than ``tau`` below the value pull it down, and
    ``<grad y, x> = y + Var_a(x) / tau``. With ``grad="detach"`` it is ``dy/dx_i = a_i`` and ``<grad y, x> = y``.
    Mellowmax has the gradient ``a_i`` by itself: its value is not explained by it.
    """
    inside = x.detach() != -math.inf
    some = inside.any(-1, keepdim=True)
    scores = torch.where(some, x / tau, 0.0)  # a softmax of nothing but -inf would be undefined
    if kind == "mellowmax":
        pooled = tau * (torch.logsumexp(scores, -1) - inside.sum(-1).clamp_min(1).to(x.dtype).log())
    else:
        weights = torch.softmax(scores.detach() if grad == "detach" else scores, -1)
        pooled = (weights * torch.where(inside, x, 0.0)).sum(-1)
    return pooled.masked_fill(~some[..., 0], -math.inf)


class SoftMaxPool(AbstractGatedLayer):
    """One value for each of some groups of equal size: for example the classes, whose members are their units.

    Parameters
    ----------
    groups : int
        Number of groups (count, >= 1). The members of a group stand side by side.
    tau : float
        Temperature in units of the input, > 0.
    grad, kind
        See `softmax_pool`. `backbones.detached_gates` detaches the weights for as long as it lasts.
    """

    def __init__(self, groups: int, *, tau: float = 1.0, grad: str = "full", kind: str = "softmax") -> None:
        super().__init__()
        check_count("groups", groups)
        _check(tau, grad, kind)
        self.groups, self.tau, self.grad, self.kind = groups, tau, grad, kind

    def forward(self, x: Float[Tensor, "batch unit"]) -> Float[Tensor, "batch group"]:
        """Pool each group."""
        grad = "detach" if self.hold_gate else self.grad
        return softmax_pool(split_groups(x, self.groups), tau=self.tau, grad=grad, kind=self.kind)


class SoftMaxPool2d(AbstractGatedLayer):
    """`torch.nn.MaxPool2d` with the softmax-weighted mean of a window in place of its maximum.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode
        As in `torch.nn.MaxPool2d`, squares only (pixels); padding is ``-inf`` and never takes part.
    tau : float
        Temperature in units of the input, > 0.
    grad, kind
        See `softmax_pool`.
    forward : {"soft", "hard"}
        ``"hard"``: the value is the maximum itself, the gradient that of the soft pooling: a surrogate.

    Notes
    -----
    The surrogate with detached weights has ``<grad y, x>`` equal to the soft value, not to the maximum.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        *,
        ceil_mode: bool = False,
        tau: float = 0.3,
        grad: str = "full",
        kind: str = "softmax",
        forward: str = "soft",
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
            check_count(name, value)
        check_count("padding", padding, least=0)
        if padding > kernel_size // 2:
            raise ValueError(
                f"`padding` must be at most half of the window, {kernel_size // 2}, got {padding}. Pass less."
            )
        _check(tau, grad, kind)
        check_choice("forward", forward, FORWARDS)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode, self.tau, self.grad, self.kind, self.forward_kind = ceil_mode, tau, grad, kind, forward

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel row column"]:
        """Pool each window."""
        grad = "detach" if self.hold_gate else self.grad
        soft = softmax_pool(self.windows(x), tau=self.tau, grad=grad, kind=self.kind)
        if self.forward_kind == "soft":
            return soft
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        hard: Tensor = functional.max_pool2d(x.detach(), *geometry)
        surrogate: Tensor = _Surrogate.apply(hard, soft)
        return surrogate

    def windows(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel row column position"]:
        """Values of each window, ``-inf`` outside of the picture."""
        below, right = (self._after(side) for side in x.shape[2:])
        x = functional.pad(x, (self.padding, right, self.padding, below), value=-math.inf)
        reach = self.dilation * (self.kernel_size - 1) + 1
        cut = x.unfold(2, reach, self.stride).unfold(3, reach, self.stride)
        return cut[..., :: self.dilation, :: self.dilation].flatten(4)

    def _after(self, side: int) -> int:
        """Padding (negative: pixels left out) below or right of the picture, with which the last window just fits."""
        reach = self.dilation * (self.kernel_size - 1) + 1
        room = side + 2 * self.padding - reach
        if room < 0:
            raise ValueError(
                f"`x` must span at least {reach - 2 * self.padding} pixels a side, got {side}. Pool smaller windows."
            )
        steps = -(-room // self.stride) if self.ceil_mode else room // self.stride
        if self.ceil_mode and steps * self.stride >= side + self.padding:
            steps -= 1  # no window starts behind the picture
        return steps * self.stride + reach - side - self.padding


class Mean(nn.Module):
    """Mean of each of some groups of equal size: a conjunction, which is large only if all of its parts are.

    Parameters
    ----------
    groups : int
        Number of groups (count, >= 1). The members of a group stand side by side.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        check_count("groups", groups)
        self.groups = groups

    def forward(self, x: Float[Tensor, "batch unit"]) -> Float[Tensor, "batch group"]:
        """Average each group."""
        return split_groups(x, self.groups).mean(-1)


class Scale(nn.Module):
    """One learned factor for all values, for example of the logits.

    Parameters
    ----------
    start : float
        Its first value.
    """

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Multiply."""
        return self.factor * x


def split_groups(x: Float[Tensor, "batch unit"], groups: int) -> Float[Tensor, "batch group member"]:
    """Put the members of each group on an axis of their own.

    Raises
    ------
    ValueError
        If the units do not divide into that many groups.
    """
    if x.ndim != 2 or x.shape[1] % groups:
        raise ValueError(
            f"`x` must have shape (batch, unit) with units that divide into {groups} groups, got {tuple(x.shape)}. "
            "Change the number of units or of groups."
        )
    grouped: Tensor = x.unflatten(1, (groups, x.shape[1] // groups))
    return grouped


class _Surrogate(torch.autograd.Function):
    """The first argument's value with the second's gradient; a sum would round, and make nan of -inf."""

    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, hard: Tensor, _soft: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _check(tau: object, grad: str, kind: str) -> None:
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not 0 < tau < math.inf:
        raise ValueError(f"`tau` must be a finite number above 0, got {tau!r}. 1 is a good start.")
    check_choice("grad", grad, GRADS)
    check_choice("kind", kind, KINDS)
