"""CUDA graphs on the CPU: operations are recorded without being done, and done again on the same memory.

As a graph does, a replay repeats the operations that torch dispatched, with the numbers that the host knew at the time:
whatever the host decides between two steps is not seen. Results are written where those of the recording lie.
"""

import contextlib

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_LOOKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten._unique2.default}
"""What a recording refuses: a number that the host looks at, a size that only the device knows."""


class Replays:
    """What `slots.training.steps.recorded` wants of a device."""

    def __init__(self):
        self.recorded, self.replayed, self.aside_calls = 0, 0, 0

    def aside(self, work):
        self.aside_calls += 1
        return work()

    def record(self, work):
        self.recorded += 1
        tape = _Tape()
        with tape:
            found = work()
        tape.undo()

        def replay():
            self.replayed += 1
            tape.play()

        return found, replay


class _Tape(TorchDispatchMode):
    """Operations in their order."""

    def __init__(self):
        super().__init__()
        self.operations, self._made, self._before = [], set(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _LOOKS:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = [it for it in tree_leaves((args, kwargs)) if isinstance(it, Tensor)]
        for it in _changed(function, args, kwargs):
            place = it.untyped_storage().data_ptr()
            if place not in self._made and place not in self._before:
                self._before[place] = (it, it.clone())
        found = function(*args, **kwargs)
        there = {it.untyped_storage().data_ptr() for it in given}
        results = [it for it in tree_leaves(found) if isinstance(it, Tensor)]
        fresh = [it.untyped_storage().data_ptr() not in there for it in results]
        self._made.update(it.untyped_storage().data_ptr() for it, new in zip(results, fresh, strict=True) if new)
        self.operations.append((function, args, kwargs, results, fresh))
        return found

    @torch.no_grad()
    def undo(self):
        """What was recorded was not done."""
        for it, before in self._before.values():
            it.copy_(before)

    @torch.no_grad()
    def play(self):
        """Do it, without counting a change."""
        with torch._C.DisableTorchFunction(), contextlib.ExitStack() as stack:
            for it, _ in self._before.values():
                stack.enter_context(torch.autograd._unsafe_preserve_version_counter(it))
            for function, args, kwargs, results, fresh in self.operations:
                found = [it for it in tree_leaves(function(*args, **kwargs)) if isinstance(it, Tensor)]
                for there, it, new in zip(results, found, fresh, strict=True):
                    if new:
                        there.copy_(it)


def _changed(function, args, kwargs):
    """Tensors that an operation writes to."""
    if function is torch.ops.aten.native_batch_norm.default:  # whose signature does not say so
        yield from (it for it in args[3:5] if it is not None)
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from (it for it in tree_leaves(given) if isinstance(it, Tensor))
