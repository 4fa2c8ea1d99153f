"""`Nodes`: nodes and constants of a graph in the making, under names of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

OPSET = 18
"""Version of the operators: the first whose ScatterElements takes maxima. onnxruntime has it since 1.14."""


class Nodes:
    """Collects nodes; each call adds one and returns the name of what it computes.

    Parameters
    ----------
    prefix : str
        Of all names, so that they meet none of another graph's.

    Attributes
    ----------
    nodes, constants : list
        Of ``onnx.NodeProto`` and ``onnx.TensorProto``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix, self.nodes, self.constants = prefix, list[Any](), list[Any]()

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = f"{self._prefix}{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def named(self, name: str, value: str) -> str:
        """Give a value the name of an output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{self._prefix}{name}"))
        return name

    def constant(self, value: npt.ArrayLike, kind: npt.DTypeLike) -> str:
        """A constant of this kind."""
        from onnx import numpy_helper

        name = f"{self._prefix}constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, kind))
        self.constants.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def cast(self, value: str, kind: npt.DTypeLike) -> str:
        """The same numbers as another kind."""
        from onnx import helper

        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def axes(self, *axes: int) -> str:
        """Axes, as reductions take them."""
        return self.constant(list(axes), np.int64)

    def biggest(self, value: str, *axes: int, keep: bool = False) -> str:
        """Maximum over axes."""
        return self("ReduceMax", value, self.axes(*axes), keepdims=int(keep))

    def column(self, value: str) -> str:
        """A row of numbers, one a row of a matrix."""
        return self("Unsqueeze", value, self.axes(1))
