"""Triton's interpreter without what it does again and again: it says the same, in half the time."""

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
    for at every one.
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
        if not kind.is_block():
            make(self, handle, kind)
            return
        sides = tuple(kind.shape.values)
        if sides not in kept:
            make(self, handle, kind)
            kept[sides] = self.numel, self.shape
        self.handle, self.type, self.dtype = handle, kind, kind.scalar
        self.numel, self.shape = kept[sides]

    return init
