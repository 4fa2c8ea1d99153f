"""Tensors of the Open Inference Protocol: as JSON, and as the bytes of its binary-tensor extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.errors import UsageError

NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
"""Datatypes of fixed size; ``BYTES`` is the one of any size."""

_LENGTH = struct.Struct("<I")


def from_bytes(raw: bytes, datatype: str, shape: Sequence[int]) -> npt.NDArray[Any] | list[bytes]:
    """Read a tensor of the binary-tensor extension.

    Parameters
    ----------
    raw : bytes
        Its elements, little endian, row after row; those of ``BYTES`` each after its length in four bytes.
    datatype : str
        ``BYTES`` or one of `NUMBERS`.
    shape : sequence of int
        Its shape.

    Returns
    -------
    array or list of bytes

    Raises
    ------
    UsageError
        If the bytes are not such a tensor.
    """
    n = math.prod(shape)
    if datatype == "BYTES":
        parts = _cut(raw)
        _check_size(len(parts), n, "elements")
        return parts
    dtype = _dtype(datatype)
    _check_size(len(raw), n * dtype.itemsize, "bytes")
    return np.frombuffer(raw, dtype=dtype).reshape(tuple(shape)).copy()  # its own, so that it may be written to


def from_json(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> npt.NDArray[Any] | list[str]:
    """Read a tensor that is written in JSON, flat or as nested lists.

    Parameters
    ----------
    data : sequence
        Its elements, row after row.
    datatype : str
        ``BYTES`` (elements are strings) or one of `NUMBERS`.
    shape : sequence of int
        Its shape.

    Returns
    -------
    array or list of str

    Raises
    ------
    UsageError
        If the elements are of another kind or number.
    """
    flat: list[Any] = list(data)
    while flat and isinstance(flat[0], list):
        if not all(isinstance(part, list) for part in flat):
            raise UsageError("`data` must be flat or evenly nested lists, got a mixture. Send it flat, row after row.")
        flat = list(chain.from_iterable(flat))
    _check_size(len(flat), math.prod(shape), "elements")
    if datatype == "BYTES":
        if not all(isinstance(it, str) for it in flat):
            raise UsageError("`data` of datatype BYTES must be strings, got something else. Send them, or binary data.")
        return flat
    dtype = _dtype(datatype)
    if not all(isinstance(it, int | float) for it in flat):
        raise UsageError(
            f"`data` of datatype {datatype} must be numbers, got something else. See the model's metadata."
        )
    if dtype.kind != "f" and any(isinstance(it, float) for it in flat):
        raise UsageError(f"`data` of datatype {datatype} must be whole numbers, got others. FP32 holds them.")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=dtype).reshape(tuple(shape))
    except (OverflowError, ValueError) as error:
        raise UsageError(f"`data` holds numbers that {datatype} cannot hold. Name the datatype they have.") from error


def to_bytes(values: npt.NDArray[Any] | Sequence[str], datatype: str) -> bytes:
    """Write a tensor for the binary-tensor extension; the inverse of `from_bytes`."""
    if datatype == "BYTES":
        encoded = [str(value).encode() for value in values]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(it)), it) for it in encoded))
    return np.asarray(values, dtype=NUMBERS[datatype]).tobytes()


def to_json(values: npt.NDArray[Any] | Sequence[str], datatype: str) -> list[Any]:
    """Write a tensor for JSON, flat; the inverse of `from_json`."""
    if datatype == "BYTES":
        return [str(value) for value in values]
    found: list[Any] = np.asarray(values, dtype=NUMBERS[datatype]).ravel().tolist()
    return found


def _dtype(datatype: str) -> np.dtype[Any]:
    if datatype not in NUMBERS:
        raise UsageError(f"`datatype` must be BYTES or one of {', '.join(NUMBERS)}, got {datatype[:32]!r}.")
    return NUMBERS[datatype]


def _check_size(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise UsageError(f"The tensor's `shape` stands for {expected} {what}, got {found}. Mend one of the two.")


def _cut(raw: bytes) -> list[bytes]:
    """The elements of a ``BYTES`` tensor."""
    parts, place = [], 0
    while place < len(raw):
        if place + _LENGTH.size > len(raw):
            raise UsageError("A BYTES tensor ends inside the length of an element. Send each after its length.")
        (length,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size
        if place + length > len(raw):
            raise UsageError("A BYTES tensor ends inside an element. Send each after its length in four bytes.")
        parts.append(raw[place : place + length])
        place += length
    return parts
