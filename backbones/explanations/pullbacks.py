"""Pullbacks: gradients in which gates open softly, of any network, whose values stay as they are to the bit.

A plain gradient takes each ReLU as fully open or fully closed and each max pooling as one input's; in a deep network
that makes pictures of noise. Within `pullback` the backward pass uses soft gates instead:

=================== ===========================================================================
ReLU                ``g * Phi(z / 0.6)``, or ``g * sigmoid(z / 0.3)``
GELU, SiLU          ``g * Phi(z)``, ``g * sigmoid(z / 1.6)``
MaxPool2d           the gradient of softmax pooling with temperature 0.3 whose weights are given
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
from backbones.explanations.soft_gates import attention, gated, layer_norm, openness, pooled
from backbones.grp import detached_gates

KINDS: Final = ("soft", "held", "plain")
GATES: Final = ("normal", "logistic")

RELU: Final = {"normal": 0.6, "logistic": 0.3}
"""Width of ReLU's gate, in units of its input, for either form."""

GELU: Final = 1.0
SILU: Final = 1.6
POOLING: Final = 0.3

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
        Multiplies all widths and temperatures (> 0); attention scores are divided by ``1 + softness``. Towards 0 ReLU
        and max pooling get their ordinary gradient. Towards infinity ReLU's gradient becomes 1/2 everywhere and max
        pooling's that of average pooling, so that the network is linear.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    The gates are laid down in the forward pass, so it must be inside the block; the backward pass may come later.
    Everything that this thread computes in the block is concerned, your loss included. Other functions keep their
    ordinary gradient: ReLU6, leaky ReLU, ``clamp``, adaptive and 1-D pooling, `torch.amax`, and attention that is
    written out as products and a softmax. So do scripted and compiled modules. Without gradients torch has a shortcut
    for attention that rounds differently; no block changes what is computed with gradients.

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

    def relu(self, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 torch's name
        """A gate as wide as asked for."""
        width = RELU[self.gate] * self.softness
        in_place = func in _IN_PLACE or bool(args and args[0]) or bool(kwargs.get("inplace"))
        return self._gated(func, input, self.gate, width, in_place, *args, **kwargs)

    def gelu(self, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """The exact form's factor, for the approximate form too."""
        return self._gated(func, input, "normal", GELU * self.softness, False, *args, **kwargs)

    def silu(self, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """The function's factor, a little wider."""
        in_place = bool(args and args[0]) or bool(kwargs.get("inplace"))
        return self._gated(func, input, "logistic", SILU * self.softness, in_place, *args, **kwargs)

    def _gated(
        self, func: Callable[..., Any], x: Tensor, form: str, width: float, in_place: bool, *args: Any, **kwargs: Any
    ) -> Any:
        if not x.requires_grad:
            return func(x, *args, **kwargs)
        opened = openness(x.detach(), form, width)
        with torch.no_grad():
            value = func(x.detach().clone() if in_place else x.detach(), *args, **kwargs)
        result = gated(x, value, opened)
        # Whoever else holds `x` must see its new values, and their gradient.
        return x.copy_(result) if in_place else result

    def max_pool(  # noqa: PLR0917 as torch passes them
        self,
        func: Callable[..., Any],
        input: Tensor,  # noqa: A002 torch's name
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        """Softmax over each window."""
        window = (kernel_size, stride or kernel_size, padding, dilation)
        more = {"return_indices": True} if return_indices else {}
        with torch.no_grad():
            found = func(input.detach(), *window, ceil_mode=ceil_mode, **more)
        value = found[0] if isinstance(found, tuple) else found
        if not input.requires_grad:
            return found
        result = pooled(input, value, window, POOLING * self.softness)
        return (result, *found[1:]) if isinstance(found, tuple) else result

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


_IN_PLACE: Final = {torch.relu_, Tensor.relu_}

_RULES: Final[dict[Any, Callable[..., Any]]] = {
    **dict.fromkeys((functional.relu, torch.relu, Tensor.relu, *_IN_PLACE), _SoftGates.relu),
    functional.gelu: _SoftGates.gelu,
    functional.silu: _SoftGates.silu,
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d, functional.max_pool2d_with_indices), _SoftGates.max_pool),
    **dict.fromkeys((functional.layer_norm, torch.layer_norm), _SoftGates.layer_norm),
    functional.scaled_dot_product_attention: _SoftGates.attention,
    functional.multi_head_attention_forward: _SoftGates.multi_head,
}
