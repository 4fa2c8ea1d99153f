"""Triton's interpreter without what it does again and again: it says the same, in a quarter of the time."""

import contextlib
import functools
from types import SimpleNamespace
from unittest import mock

import numpy as np


@contextlib.contextmanager
def quick_interpreter():
    """For a while, let the interpreter keep what it finds.

    It looks through its whole language whenever a kernel calls another function, and finds it ready; it makes a table
    of all formats of numbers whenever it asks for one; it makes the type of a block anew for each result, and the shape
    of each value from that; and without ``debug`` it throws away whether a sum of integers has run over, which it looks
    for at every one. Before each operation it works out from the two types alone to which type and shape both are
    brought.
    """
    from triton.language import core, semantic
    from triton.runtime import interpreter

    make_table = functools.cache(interpreter._get_np_dtype)

    def formats(kind):
        return np.dtype(np.uint64) if kind.scalar.is_ptr() else make_table(kind.scalar)  # an address, or a number

    look_for_overflow = semantic.TritonSemantic.binary_op_sanitize_overflow_impl

    def overflow(self, *args):
        if self.builder.options.debug:
            look_for_overflow(self, *args)

    with (
        mock.patch.object(interpreter, "_patch_lang", _ready_once(interpreter, core)),
        mock.patch.object(interpreter, "_get_np_dtype", formats),
        mock.patch.object(semantic.TritonSemantic, "binary_op_sanitize_overflow_impl", overflow),
        mock.patch.object(core.block_type, "__init__", _kept_block_types(core)),
        mock.patch.object(core.tensor, "__init__", _kept_shapes(core)),
        mock.patch.object(core.dtype, "__eq__", _same_or_equal(core)),
        mock.patch.object(core, "_unwrap_if_constexpr", _unwrapped_where_wrapped(core)),
        mock.patch.object(interpreter, "_patch_attr", _called_at_once(interpreter)),
        _kept_ways(interpreter, semantic, "binary_op_type_checking_impl"),
        _kept_ways(interpreter, semantic, "broadcast_impl_value"),
    ):
        yield


def _ready_once(interpreter, core):
    from triton import language

    make_ready, ready = interpreter._patch_lang, SimpleNamespace(restore=lambda: None)

    def once(fn):
        seen = [it for it in fn.__globals__.values() if it is language or it is core]
        return make_ready(fn) if any(core.is_builtin(it.load) for it in seen) else ready

    return once


def _kept_block_types(core):
    make, kept = core.block_type.__init__, {}

    def init(self, element_ty, shape):
        sides = tuple(getattr(side, "value", side) for side in shape)
        key = element_ty.name, sides
        if key not in kept:
            make(self, element_ty, shape)
            kept[key] = self.__dict__.copy()
        self.__dict__.update(kept[key])
        self.element_ty = element_ty

    return init


def _kept_shapes(core):
    make, kept = core.tensor.__init__, {}

    def init(self, handle, kind):
        sides = tuple(kind.shape.values) if kind.is_block() else ()
        if sides not in kept:
            make(self, handle, kind)
            kept[sides] = self.numel, self.shape
        self.handle, self.type, self.dtype = handle, kind, kind.scalar
        self.numel, self.shape = kept[sides]

    return init


def _same_or_equal(core):
    compare = core.dtype.__eq__

    def equal(self, other):
        return self is other or compare(self, other)

    return equal


def _unwrapped_where_wrapped(core):
    unwrap, plain = core._unwrap_if_constexpr, frozenset((int, float, bool, str, type(None), core.tensor, core.dtype))

    def unwrapped(it):
        return it if type(it) in plain else unwrap(it)

    return unwrapped


def _called_at_once(interpreter):
    """A function of the language called without looking who calls it: here it is always the interpreter."""

    def patch(obj, name, member, _builder, scope):
        inner, semantic = getattr(member, "__wrapped__", member), interpreter.interpreter_semantic

        def called(*args, **kwargs):
            kwargs["_semantic"] = semantic
            return inner(*args, **kwargs)

        scope.set_attr(obj, name, called)

    return patch


def _kept_ways(interpreter, semantic, name):
    """How the two sides of an operation are brought to one type or shape, kept for each pair of types."""
    bring, ways = getattr(semantic.TritonSemantic, name), {}

    def kind(side):
        return side.type.name if hasattr(side, "handle") else (type(side), side)

    def brought(self, lhs, rhs, *how):
        key = kind(lhs), kind(rhs), how
        if key not in ways:
            pair = bring(self, lhs, rhs, *how)
            ways[key] = [_way(interpreter, *sides) for sides in zip((lhs, rhs), pair, strict=True)]
        left, right = ways[key]
        return left(self, lhs), right(self, rhs)

    return mock.patch.object(semantic.TritonSemantic, name, brought)


def _way(interpreter, before, after):
    """What gives ``after`` for each value of the type of ``before``."""
    if before is after:
        return lambda _self, side: side
    if not hasattr(before, "handle"):
        return lambda _self, _side: after  # a number: nothing ever writes to it
    kind, scalar = after.type, after.handle.dtype
    shape, numbers = after.handle.data.shape, after.handle.data.dtype

    def bring(self, side):
        data = side.handle.data
        data = data if data.dtype == numbers else data.astype(numbers)
        data = data if data.shape == shape else np.broadcast_to(data, shape)
        return self.make_tensor(interpreter.TensorHandle(data, scalar), kind)

    return bring
