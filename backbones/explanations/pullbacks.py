"""Pullbacks: gradients in which gates open softly, of any network, whose values stay as they are to the bit.

A plain gradient takes each ReLU as fully open or fully closed and each max pooling as one input's; in a deep network
that makes pictures of noise. Within `pullback` the backward pass uses soft gates instead:

=================== ===========================================================================
ReLU                ``g * Phi(z / 0.6)``, or ``g * sigmoid(z / 0.3)``
clamp, ReLU6        a gate as ReLU's at either bound: ``g * Phi((z - a) / 0.6) * Phi((b - z) / 0.6)``
leaky ReLU, PReLU   ``g * (a + (1 - a) Phi(z / 0.6))`` with the slope ``a`` below 0
GELU, SiLU          ``g * Phi(z)``, ``g * sigmoid(z / 1.6)``
hard-swish          ``g * relu6(z / 1.6 + 3) / 6``
max pooling         the gradient of softmax pooling with temperature 0.3 whose weights are given
LayerNorm           mean and variance are given
attention           its weights are given, and twice as soft; the gradient goes through the values
=================== ===========================================================================

"Given" means: no gradient flows through it. ``Phi`` is the distribution function of the normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from backbones.checks import check_choice
from backbones.explanations import soft_activations, soft_pooling
from backbones.explanations.soft_gates import attention, gated, layer_norm
from backbones.grp import detached_gates

KINDS: Final = ("soft", "held", "plain")
GATES: Final = ("normal", "logistic")

ATTENTION: Final = 2.0
"""What attention scores are divided by for the gradient (ours; the published rule only says that they are softened)."""


@contextmanager
def pullback(model: nn.Module, kind: str = "soft", *, gate: str = "normal", softness: float = 1.0) -> Iterator[None]:
    """Within the block gradients pass through soft gates; values do not change.

    Parameters
    ----------
    model : nn.Module
        Any network. It is not changed: its functions are caught as they are called, modules or not, in place or not.
        Gates of the project's own layers are held fixed (`detached_gates`).
    kind : {"soft", "held", "plain"}
        ``"soft"``: see above. ``"held"``: only the gates of the project's own layers are held fixed. ``"plain"``: the
        ordinary gradient.
    gate : {"normal", "logistic"}
        Form of ReLU's gate: ``Phi(z / 0.6)`` or ``sigmoid(z / 0.3)``.
    softness : float
        Multiplies all widths and temperatures (> 0); attention scores are divided by ``1 + softness``. Towards 0 ReLU,
        leaky ReLU, clamps and max pooling get their ordinary gradient. Towards infinity ReLU's gradient becomes 1/2
        everywhere (hard-swish's too, a clamp's with two bounds 1/4, a leaky ReLU's the mean of its slopes) and max
        pooling's that of average pooling, so that the network is linear.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    The gates are laid down in the forward pass, so it must be inside the block; the backward pass may come later.
    Everything that this thread computes in the block is concerned, your loss included. `torch.max` and `torch.amax`
    are poolings along axes after the second of three or more, (batch, channel, place, ...). A clamp keeps its ordinary
    gradient where a bound is a tensor, and where the lower one is above 0 and at most 0.001: that guards a quotient.
    So do all other functions: ELU, Mish, hard-sigmoid, `torch.maximum`, products of two maps, and attention that is
    written out as products and a softmax; and scripted and compiled modules. Average pooling is linear and needs
    nothing. Without gradients torch has a shortcut for attention that rounds differently; no block changes what is
    computed with gradients.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> with pullback(net):
    ...     net(x).sum().backward()
    """
    check_choice("kind", kind, KINDS)
    check_choice("gate", gate, GATES)
    if isinstance(softness, bool) or not isinstance(softness, (int, float)) or not 0 < softness < math.inf:
        raise ValueError(f"`softness` must be a finite number above 0, got {softness!r}. 1 is the published one.")
    if kind == "plain":
        yield
        return
    with detached_gates(model):
        if kind == "held":
            yield
            return
        with _SoftGates(gate, float(softness)):
            yield


class _SoftGates(TorchFunctionMode):
    """Replaces the gradients of the functions it knows; torch runs `__torch_function__` outside of the mode."""

    def __init__(self, gate: str, softness: float) -> None:
        super().__init__()
        self.gate, self.softness = gate, softness

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        if rule is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return rule(self, func, *args, **kwargs)

    def layer_norm(  # noqa: PLR0917
        self,
        func: Callable[..., Any],
        input: Tensor,  # noqa: A002 torch's name
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *rest: Any,
        **kwargs: Any,
    ) -> Any:
        """Linear in its input."""
        with torch.no_grad():
            value = func(input, normalized_shape, weight, bias, eps, *rest, **kwargs)
        return layer_norm(input, value, len(normalized_shape), weight, bias, eps)

    def attention(self, func: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, *a: Any, **kw: Any) -> Any:
        """Linear in the values."""
        with torch.no_grad():
            result = func(query, key, value, *a, **kw)
        temperature = 1.0 + (ATTENTION - 1.0) * self.softness
        return attention(result, temperature, query, key, value, *a, **kw)

    def multi_head(self, func: Callable[..., Any], *args: Any, need_weights: bool = True, **kwargs: Any) -> Any:
        """Torch's own text, run inside of the mode: what it calls is then caught, where otherwise nothing would be."""
        inside = _without_override(func)
        with self:
            soft, _ = inside(*args, need_weights=False, **kwargs)
        if not need_weights:
            return soft, None
        with torch.no_grad():
            value, weights = func(*args, need_weights=True, **kwargs)
        return gated(soft, value, None), weights


def _without_override(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch that does not ask whether it is overridden, but whose callees do."""
    if not isinstance(function, FunctionType):
        return function
    names = {**function.__globals__, "has_torch_function": lambda _tensors: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_RULES: Final[dict[Any, Callable[..., Any]]] = {
    **soft_activations.RULES,
    **soft_pooling.RULES,
    **dict.fromkeys((functional.layer_norm, torch.layer_norm), _SoftGates.layer_norm),
    functional.scaled_dot_product_attention: _SoftGates.attention,
    functional.multi_head_attention_forward: _SoftGates.multi_head,
}
