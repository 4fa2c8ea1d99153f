"""Activations within `pullback`: how far each is open for its input, in place of whether it is.

Each gate is ReLU's, ``Phi(z / 0.6)``, wherever a function bends: at 0 for ReLU and leaky ReLU, at either bound of a
clamp. A leaky ReLU lets its slope through where it is shut. Functions of the form ``x * factor(x)`` (GELU, SiLU,
hard-swish) have their own factor as gate, SiLU's and hard-swish's 1.6 times as wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from backbones.explanations.soft_gates import Softness, gated, openness

RELU: Final = {"normal": 0.6, "logistic": 0.3}
"""Width of ReLU's gate, in units of its input, for either form."""

GELU: Final = 1.0
SILU: Final = 1.6
HARD_SWISH: Final = 1.6

GUARD: Final = 1e-3
"""A lower bound of at most this, and above 0, guards a quotient or a logarithm: it is no gate."""

Function = Callable[..., Any]
Opening = Callable[[Tensor], Tensor | None]


def relu(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 torch's name
    """``Phi(z / 0.6)``."""
    return _put(func, input, lambda z: _bend(how, z), _in_place(func, 0, args, kwargs), *args, **kwargs)


def relu6(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """A gate at 0 and one at 6."""
    return _put(func, input, lambda z: _between(how, z, 0.0, 6.0), _in_place(func, 0, args, kwargs), *args, **kwargs)


def hardtanh(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """A gate at either bound; torch's ReLU6 module comes here."""
    low, high = _argument(args, kwargs, 0, "min_val", -1.0), _argument(args, kwargs, 1, "max_val", 1.0)
    return _put(func, input, lambda z: _between(how, z, low, high), _in_place(func, 2, args, kwargs), *args, **kwargs)


def clamp(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """A gate at either bound, where there is one; `torch.clip` is the same."""
    low, high = _argument(args, kwargs, 0, "min"), _argument(args, kwargs, 1, "max")
    return _put(func, input, lambda z: _between(how, z, low, high), _in_place(func, 2, args, kwargs), *args, **kwargs)


def clamp_min(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """A gate at the lower bound."""
    low = _argument(args, kwargs, 0, "min")
    return _put(func, input, lambda z: _between(how, z, low, None), _in_place(func, 1, args, kwargs), *args, **kwargs)


def clamp_max(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """A gate at the upper bound."""
    high = _argument(args, kwargs, 0, "max")
    return _put(func, input, lambda z: _between(how, z, None, high), _in_place(func, 1, args, kwargs), *args, **kwargs)


def leaky_relu(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """``a + (1 - a) Phi(z / 0.6)`` with the slope ``a``: the mean of both slopes, by how far it is open."""
    slope = float(_argument(args, kwargs, 0, "negative_slope", 0.01))
    return _put(
        func, input, lambda z: slope + (1 - slope) * _bend(how, z), _in_place(func, 1, args, kwargs), *args, **kwargs
    )


def prelu(how: Softness, func: Function, input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """A leaky ReLU, whose slopes get their ordinary gradient."""
    if not (input.requires_grad or weight.requires_grad):
        return func(input, weight)
    x = input.detach()
    with torch.no_grad():
        value = func(x, weight)
    slope = weight.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else weight
    held = slope.detach()
    return gated(input * (held + (1 - held) * _bend(how, x)) + slope * x.clamp(max=0), value, None)


def gelu(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """The exact form's factor, for the approximate form too."""
    return _put(func, input, lambda z: openness(z, "normal", GELU * how.softness), False, *args, **kwargs)


def silu(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """The function's factor, a little wider."""
    width = SILU * how.softness
    is_in_place = _in_place(func, 0, args, kwargs)
    return _put(func, input, lambda z: openness(z, "logistic", width), is_in_place, *args, **kwargs)


def hard_swish(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """The function's factor, a ramp from 0 to 1, as much wider as SiLU's."""
    width = HARD_SWISH * how.softness
    is_in_place = _in_place(func, 0, args, kwargs)
    return _put(func, input, lambda z: functional.hardsigmoid(z / width), is_in_place, *args, **kwargs)


def _bend(how: Softness, z: Tensor) -> Tensor:
    """How far a gate is open that opens at 0."""
    return openness(z, how.gate, RELU[how.gate] * how.softness)


def _between(how: Softness, z: Tensor, low: Any, high: Any) -> Tensor | None:
    """The product of a gate at either bound; None where the bounds are no gates of ours.

    The derivative of a clamp that normal noise smoothes is the *sum* of both gates minus 1: less by the product of how
    far they are shut. The product stays a linear network's where both are wide open, and that falls to 0.
    """
    bounds = [bound for bound in (low, high) if bound is not None]
    if any(isinstance(bound, Tensor) for bound in bounds) or (low is not None and 0 < low <= GUARD):
        return None
    gates = ([] if low is None else [_bend(how, z - low)]) + ([] if high is None else [_bend(how, high - z)])
    return gates[0] * gates[1] if len(gates) == 2 else gates[0] if gates else None


def _put(func: Function, x: Tensor, opening: Opening, in_place: bool, *args: Any, **kwargs: Any) -> Any:
    """The function's own value, whose gradient is multiplied by how far it is open; None: the ordinary gradient."""
    opened = opening(x.detach()) if x.requires_grad else None
    if opened is None:
        return func(x, *args, **kwargs)
    with torch.no_grad():
        value = func(x.detach().clone() if in_place else x.detach(), *args, **kwargs)
    result = gated(x, value, opened)
    # Whoever else holds `x` must see its new values, and their gradient.
    return x.copy_(result) if in_place else result


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument after the input, by position or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def _in_place(func: Function, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function was called in place: by its own name, or by its argument ``inplace``."""
    return func in _IN_PLACE or bool(_argument(args, kwargs, place, "inplace", False))


def _forms(*names: str) -> list[Function]:
    """A function's forms: of torch and of tensors, and those in place."""
    return [
        getattr(home, form)
        for name in names
        for home in (torch, Tensor)
        for form in (name, f"{name}_")
        if hasattr(home, form)
    ]


RULES: Final[dict[Any, Callable[..., Any]]] = {
    **dict.fromkeys((functional.relu, *_forms("relu")), relu),
    functional.relu6: relu6,
    **dict.fromkeys((functional.hardtanh, functional.hardtanh_), hardtanh),
    **dict.fromkeys(_forms("clamp", "clip"), clamp),
    **dict.fromkeys(_forms("clamp_min"), clamp_min),
    **dict.fromkeys(_forms("clamp_max"), clamp_max),
    **dict.fromkeys((functional.leaky_relu, functional.leaky_relu_), leaky_relu),
    **dict.fromkeys(_forms("prelu"), prelu),
    functional.gelu: gelu,
    functional.silu: silu,
    functional.hardswish: hard_swish,
}
"""What stands in for each function: called with how softly gates open, the function and its arguments."""

_IN_PLACE: Final = {func for func in RULES if func.__name__.endswith("_")}
