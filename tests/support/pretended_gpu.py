"""Tensors that pretend to be on a GPU, for machines without one: what runs on them runs on the CPU.

Under `PretendedGpu` a tensor that is sent to ``cuda`` says that it is there, as does all that is made of it. What a
GPU refuses is refused: operations on tensors of two devices, and numpy on a tensor that was not brought back. What
makes the host wait for a GPU (a number looked at, a copy to the host, a result whose size is not known before) is
counted, with the lines that did it. Whoever asks where a tensor lies takes the GPU's path.

It knows nothing of Triton's kernels, which `torch.cuda.is_available` keeps away, nor of streams. Of a gradient's own
pass nothing is counted, since that runs below Python.
"""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import slots

CUDA = torch.device("cuda", 0)
_MEMORY = 16 << 30
_HERE = str(Path(slots.__file__).parents[1])  # of the checkout, or of the wheel that is tested

_LOOKS = {
    Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__,
    Tensor.__contains__, Tensor.nonzero, torch.nonzero, torch.argwhere, Tensor.argwhere, Tensor.unique, torch.unique,
    Tensor.unique_consecutive, torch.unique_consecutive, torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
    Tensor.masked_select, torch.masked_select, torch.bincount, Tensor.bincount,
}  # fmt: skip
"""What gives the host a number, or a tensor whose size only the GPU knows."""

_ACROSS = {
    Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__, Tensor.data.__set__,  # type: ignore[attr-defined]
    torch._has_compatible_shallow_copy_type,
}  # fmt: skip
"""What a GPU allows with a tensor of the host: copies, and indices, which are copied."""

_TO_NUMPY = {Tensor.numpy, Tensor.__array__}
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}


class PretendedGpu(TorchFunctionMode):
    """Within it ``cuda`` is a device.

    Parameters
    ----------
    capability : tuple of int
        Which GPU it is; by default one that is quick in float64, as an H100 is.

    Attributes
    ----------
    waits : Counter of str
        How often the host waited, by the line that made it wait.
    """

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        super().__init__()
        self.capability = capability
        self.waits: collections.Counter[str] = collections.Counter()
        self._there: dict[int, bool] = {}  # by the address of the memory: what was said of it last

    def __enter__(self) -> PretendedGpu:
        from_numpy = torch.from_numpy  # which no mode sees
        self._before = torch.Generator, torch.cuda.mem_get_info, torch.cuda.get_device_capability, from_numpy
        torch.Generator, torch.cuda.mem_get_info = _Generator, lambda *_: (_MEMORY, _MEMORY)  # type: ignore[misc]
        torch.cuda.get_device_capability = lambda *_: self.capability
        torch.from_numpy = lambda array: self.put(from_numpy(array), False)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.Generator, torch.cuda.mem_get_info, torch.cuda.get_device_capability, torch.from_numpy = self._before  # type: ignore[misc]

    @property
    def n_waits(self) -> int:
        """How often the host waited in all."""
        return sum(self.waits.values())

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor is there."""
        if not isinstance(tensor, Tensor):
            return False
        marked = tensor.__dict__.get("_pretended")
        if marked is None:  # a new face of a known memory, such as a parameter made of a tensor
            marked = self._there.get(_address(tensor), False)
        return bool(marked)

    def put(self, tensor: Tensor, there: bool = True) -> Tensor:
        """Say where a tensor is."""
        tensor._pretended = there  # type: ignore[attr-defined]
        if address := _address(tensor):  # nothing lies nowhere
            self._there[address] = there
        return tensor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [it for it in _flat([args, kwargs]) if isinstance(it, Tensor)]
        there = [self.holds(it) for it in tensors]
        if function == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if there[0] else function(*args)
        if function == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return there[0]
        if function in _MOVES:
            return self._moved(function, args, kwargs)
        if function == Tensor.numpy and there[0] and kwargs.get("force"):
            self._note()
            return args[0].numpy(force=True)
        if function in _TO_NUMPY and there[0]:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if any(there):
            self._check(function, tensors, there)
            if self._makes_wait(function, args, kwargs):
                self._note()
        wanted = _device_of(kwargs)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        found = function(*args, **kwargs)
        if function == Tensor.data.__set__:  # type: ignore[attr-defined]
            self.put(args[0], there[1])
            return found
        lands = any(there) if wanted is None else wanted.type == "cuda"
        for it in _flat(found):
            if isinstance(it, Tensor) and not any(it is other for other in tensors):
                self.put(it, lands)
        return found

    def _moved(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """A copy where the device changes, with its mark."""
        before, dtype = self.holds(args[0]), kwargs.get("dtype")
        after = {Tensor.cpu: False, Tensor.cuda: True}.get(function, before)
        for it in (*args[1:], kwargs.get("device"), kwargs.get("other")) if function == Tensor.to else ():
            device = self._device_named(it)
            after = after if device is None else device.type == "cuda"
            dtype = it if isinstance(it, torch.dtype) else it.dtype if isinstance(it, Tensor) else dtype
        kept = {name: value for name, value in kwargs.items() if name in ("copy", "memory_format")}
        found: Tensor = args[0].to(dtype or args[0].dtype, **kept)
        if after != before:
            if before:
                self._note()
            found = found.clone() if found is args[0] else found
        return self.put(found, after) if found is not args[0] else found

    def _device_named(self, it: Any) -> torch.device | None:
        if isinstance(it, Tensor):
            return CUDA if self.holds(it) else torch.device("cpu")
        return torch.device(it) if isinstance(it, str | torch.device) else None

    def _check(self, function: Any, tensors: list[Tensor], there: list[bool]) -> None:
        """What a GPU says to tensors of two devices; a single number of the host may be anywhere."""
        if function in _ACROSS:
            return
        if any(not mine and it.dim() for it, mine in zip(tensors, there, strict=True)):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({getattr(function, '__name__', function)})"
            )

    def _makes_wait(self, function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        if function in _LOOKS:
            return True
        if function in (torch.where, Tensor.where):
            return len(args) + len(kwargs) == 1
        if function in (torch.repeat_interleave, Tensor.repeat_interleave):
            return "output_size" not in kwargs and any(isinstance(it, Tensor) for it in args[1:])
        if function in (Tensor.__getitem__, Tensor.__setitem__):  # by a mask, or by numbers that the host has
            given = [it for it in _flat(args[1]) if isinstance(it, Tensor)]
            return any(it.dtype == torch.bool or not self.holds(it) for it in given)
        return bool(function == Tensor.copy_ and self.holds(args[0]) != self.holds(args[1]))

    def _note(self) -> None:
        """Count one more for the first line of the library on the way here."""
        frame = sys._getframe(1)
        while frame is not None and not _of_the_library(frame.f_code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]
        place = (
            "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(_HERE)}:{frame.f_lineno}"
        )
        self.waits[place] += 1


class _Generator(torch.Generator):
    """Of whatever device it is asked for, on the host."""

    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls, device="cpu")


def _address(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _of_the_library(file: str) -> bool:
    return file.startswith((f"{_HERE}/slots/", f"{_HERE}/backbones/", f"{_HERE}/protocols/"))


def _device_of(kwargs: dict[str, Any]) -> torch.device | None:
    given = kwargs.get("device")
    return None if given is None else torch.device(given)


def _flat(it: Any) -> Any:
    """All that lists, tuples and dictionaries hold."""
    if isinstance(it, list | tuple):
        for one in it:
            yield from _flat(one)
    elif isinstance(it, dict):
        yield from _flat(list(it.values()))
    else:
        yield it
