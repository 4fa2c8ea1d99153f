"""`Kept`: what was computed from tensors, kept between calls and never out of date."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from slots.jit import compiled

_T = TypeVar("_T")
_MOST_THERE = 1 << 28  # elements of tensors off the CPU, where nothing is read


class Kept(Generic[_T]):
    """Values made from tensors, kept until other tensors are asked about.

    Before each use the bits of the tensors are compared by a digest (7 GB a second), so whatever changes one, in place
    or not, makes a new value. Off the CPU, where a look would wait for the device, torch's own count of changes in
    place is compared instead: whoever changes a tensor behind its back (through ``.data``) must count too. A copy of
    this object, and one that was pickled, starts without values. Threads may undo each other's work and mix nothing.

    Parameters
    ----------
    most_values : int, default 2
        Values kept at once, those used last (count, >= 1).
    most_numbers : int, default 2^24
        Tensors with more elements than this together are not looked at: what is made of them is not kept.

    Examples
    --------
    >>> kept, numbers = Kept(), torch.tensor([1.0, 2.0])
    >>> kept(numbers, make=lambda: float(numbers.sum())), kept(numbers, make=lambda: 0.0)
    (3.0, 3.0)
    >>> numbers[0] = 5.0
    >>> kept(numbers, make=lambda: float(numbers.sum()))
    7.0
    """

    def __init__(self, *, most_values: int = 2, most_numbers: int = 1 << 24) -> None:
        self._most_values, self._most_numbers = most_values, most_numbers
        self._values: tuple[tuple[Hashable, _T, tuple[Tensor, ...]], ...] = ()

    def __len__(self) -> int:
        """How many values are kept now."""
        return len(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        return _fresh, (self._most_values, self._most_numbers)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Kept[_T]:
        return _fresh(self._most_values, self._most_numbers)

    def __call__(self, *tensors: Tensor, make: Callable[[], _T], shares: bool = False) -> _T:
        """The value of these tensors.

        Parameters
        ----------
        tensors : tensors
            All that the value depends on.
        make : callable
            Makes the value.
        shares : bool, default False
            Whether the value holds the tensors themselves. Then it is not given for others of the same content, since
            one of these could change without the other.
        """
        there, n_numbers = any(it.device.type != "cpu" for it in tensors), sum(it.numel() for it in tensors)
        if n_numbers > (_MOST_THERE if there else self._most_numbers) or (
            there and any(map(Tensor.is_inference, tensors))
        ):
            return make()
        stamp = _stamp_there(tensors) if there else _stamp(tensors, shares=shares)
        values = self._values
        for place, (known, value, _) in enumerate(values):
            if known == stamp:
                if place:
                    self._values = (values[place], *values[:place], *values[place + 1 :])
                return value
        value = make()
        held = tensors if there else ()  # while it lives no other tensor can lie where it does
        self._values = ((stamp, value, held), *values[: self._most_values - 1])
        return value


def _stamp(tensors: tuple[Tensor, ...], *, shares: bool) -> Hashable:
    return tuple((digest(it), it.dtype, it.shape, it.data_ptr() if shares else 0) for it in tensors)


def _stamp_there(tensors: tuple[Tensor, ...]) -> Hashable:
    return tuple((it.data_ptr(), it._version, it.dtype, it.shape) for it in tensors)  # noqa: SLF001  # torch's count


def _fresh(most_values: int, most_numbers: int) -> Kept[Any]:
    return Kept(most_values=most_values, most_numbers=most_numbers)


def digest(values: Tensor) -> int:
    """64 bits that tell apart two contents of a tensor on the CPU, up to a chance of 2^-64.

    Parameters
    ----------
    values : tensor
        Of any kind and shape; the shape is not looked at.
    """
    found = values.detach()
    found = found.view(torch.int16) if found.dtype == torch.bfloat16 else found  # which NumPy lacks
    raw = np.ascontiguousarray(found.numpy()).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    return hash((int(_digest_words(raw[:whole].view(np.uint64))), raw[whole:].tobytes()))


@compiled
def _digest_words(words: Any) -> Any:
    """Sum of words, each times an odd number of its place, both halves mixed."""
    total = np.uint64(len(words))
    for k in range(np.uint64(len(words))):
        mixed = (words[k] ^ (words[k] >> np.uint64(29))) * (np.uint64(k) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1))
        total += mixed ^ (mixed >> np.uint64(32))
    return total
