"""Max pooling within `pullback`: each window shares its gradient out by a softmax, in place of all to one input.

The weights of the softmax, with temperature 0.3, are given. Windows may be of one size, of adaptive sizes or whole
maps. Averages need nothing: average pooling, adaptive or not, is linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from backbones.explanations.soft_gates import Softness, gated

POOLING: Final = 0.3
"""Temperature of the softmax, in units of the maps."""

_FIRST_PLACE: Final = 2
"""Axes from this one on are places, where there are three or more: (batch, channel, place, ...)."""

Function = Callable[..., Any]
Windows = tuple[Tensor, Tensor]
"""Along one axis: which places each window sees, and whether each exists; both of shape (window, place of it)."""


def max_pool(  # noqa: PLR0917 as torch passes them
    how: Softness,
    func: Function,
    input: Tensor,  # noqa: A002 torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Windows of one size, over one, two or three axes."""
    more = {"return_indices": True} if return_indices else {}
    with torch.no_grad():
        found = func(input.detach(), kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, **more)
    if not input.requires_grad:
        return found
    value = found[0] if isinstance(found, tuple) else found
    axes = _AXES[func]
    geometry = zip(
        *(_each(entry, axes) for entry in (kernel_size, stride or kernel_size, padding, dilation)), strict=True
    )
    windows = []
    for axis, (kernel, step, before, spread) in zip(range(-axes, 0), geometry, strict=True):
        first = step * torch.arange(value.shape[axis]) - before
        places = first[:, None] + spread * torch.arange(kernel)
        windows.append((places, (places >= 0) & (places < input.shape[axis])))
    result = pooled(input, value, windows, POOLING * how.softness)
    return (result, *found[1:]) if isinstance(found, tuple) else result


def adaptive_max_pool(
    how: Softness,
    func: Function,
    input: Tensor,  # noqa: A002
    output_size: Any,
    return_indices: bool = False,
) -> Any:
    """Windows that share the places out among as many as are asked for; neighbours may overlap by one place."""
    more = {"return_indices": True} if return_indices else {}
    with torch.no_grad():
        found = func(input.detach(), output_size, **more)
    if not input.requires_grad:
        return found
    value = found[0] if isinstance(found, tuple) else found
    windows = []
    for axis in range(-_AXES[func], 0):
        inputs, outputs = input.shape[axis], value.shape[axis]
        window = torch.arange(outputs)
        first, end = window * inputs // outputs, -(-(window + 1) * inputs // outputs)
        places = first[:, None] + torch.arange(int((end - first).max()))
        windows.append((places, places < end[:, None]))
    result = pooled(input, value, windows, POOLING * how.softness)
    return (result, *found[1:]) if isinstance(found, tuple) else result


def maximum(how: Softness, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
    """The largest of all places: `torch.amax` and `torch.max` along axes after the second of three or more."""
    axes = _places(input.ndim, args[0] if args else kwargs.get("dim", kwargs.get("axis")))
    if axes is None or not input.requires_grad:
        return func(input, *args, **kwargs)
    with torch.no_grad():
        found = func(input.detach(), *args, **kwargs)
    value = found if isinstance(found, Tensor) else found[0]
    inner = input.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))
    result = _shared(inner, inner.detach(), value, POOLING * how.softness)
    return result if isinstance(found, Tensor) else type(found)((result, found[1]))


def pooled(x: Tensor, value: Tensor, windows: Sequence[Windows], temperature: float) -> Tensor:
    """The largest of each window, with the gradient of the softmax-weighted sum whose weights are given.

    Parameters
    ----------
    x : tensor of shape (..., place, ...)
        Maps before the pooling, which the gradient goes to; their last axes are the places.
    value : tensor
        The pooled maps, without gradient.
    windows : sequence of pairs of tensors
        For each of the last axes `Windows`.
    temperature : float
        Of the softmax, in units of ``x`` (> 0).
    """
    n = len(windows)
    inner, is_there = x, torch.ones((), dtype=torch.bool, device=x.device)
    for number, (places, exists) in enumerate(windows):
        axis = x.ndim - n + 2 * number
        seen = places.clamp(0, inner.shape[axis] - 1).to(x.device)
        inner = inner.index_select(axis, seen.flatten()).unflatten(axis, seen.shape)
        is_there = is_there[..., None, None] & exists.to(x.device)
    # (..., window, place of it, window, place of it) to (..., window, window, place)
    inside = tuple(range(1 - 2 * n, 0, 2))
    last = tuple(range(-n, 0))
    inner = inner.movedim(inside, last).flatten(-n)
    is_there = is_there.movedim(inside, last).flatten(-n)
    return _shared(inner, inner.detach().masked_fill(~is_there, -math.inf), value, temperature)


def _shared(inner: Tensor, scores: Tensor, value: Tensor, temperature: float) -> Tensor:
    """``value``, whose gradient goes to the last axis of ``inner`` by the softmax of ``scores``."""
    shares = torch.softmax(scores / temperature, -1).nan_to_num(0.0)  # a window may lie in the border alone
    return gated((inner * shares).sum(-1).reshape(value.shape), value, None)


def _places(ndim: int, dim: Any) -> tuple[int, ...] | None:
    """The axes that are asked for, from the front; None unless all of them are places."""
    if isinstance(dim, int) and not isinstance(dim, bool):
        dim = (dim,)
    if not isinstance(dim, (tuple, list)) or not dim:
        return None
    axes = tuple(axis % ndim for axis in dim if -ndim <= axis < ndim)
    return axes if len(axes) == len(dim) and min(axes) >= _FIRST_PLACE else None


def _each(entry: Any, axes: int) -> tuple[int, ...]:
    """An int, or a sequence of one or more, as one for each axis."""
    several = tuple(entry) if isinstance(entry, (tuple, list)) else (entry,)
    return tuple(map(int, several * axes if len(several) == 1 else several))


_FIXED: Final = {
    1: (functional.max_pool1d, functional.max_pool1d_with_indices, torch.max_pool1d),
    2: (functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d),
    3: (functional.max_pool3d, functional.max_pool3d_with_indices, torch.max_pool3d),
}
_ADAPTIVE: Final = {
    1: (functional.adaptive_max_pool1d, functional.adaptive_max_pool1d_with_indices, torch.adaptive_max_pool1d),
    2: (functional.adaptive_max_pool2d, functional.adaptive_max_pool2d_with_indices),
    3: (functional.adaptive_max_pool3d, functional.adaptive_max_pool3d_with_indices),
}
_AXES: Final = {func: axes for table in (_FIXED, _ADAPTIVE) for axes, funcs in table.items() for func in funcs}

RULES: Final[dict[Any, Callable[..., Any]]] = {
    **{func: max_pool for funcs in _FIXED.values() for func in funcs},
    **{func: adaptive_max_pool for funcs in _ADAPTIVE.values() for func in funcs},
    **dict.fromkeys((torch.amax, Tensor.amax, torch.max, Tensor.max), maximum),
}
"""What stands in for each function: called with how softly gates open, the function and its arguments."""
