"""Tensors as bytes and back, so that processes can exchange any of them in one message."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_KINDS = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.float32, torch.float64,
    )
}  # fmt: skip


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one row of bytes.

    Parameters
    ----------
    tensors : sequence of tensors
        Of the kinds that NumPy has, on any device.

    Returns
    -------
    uint8 tensor of shape (byte,)
        On the CPU.

    Examples
    --------
    >>> unpack(pack([torch.tensor([1.5]), torch.ones(2, 0, dtype=torch.bool)]))
    [tensor([1.5000]), tensor([], size=(2, 0), dtype=torch.bool)]
    """
    parts = [it.detach().cpu().contiguous() for it in tensors]
    shapes = [(str(it.dtype).removeprefix("torch."), list(it.shape)) for it in parts]
    header = json.dumps(shapes).encode()
    pieces = [len(header).to_bytes(8, "little"), header, *(it.numpy().tobytes() for it in parts)]
    return torch.from_numpy(np.frombuffer(b"".join(pieces), np.uint8).copy())


def unpack(octets: Tensor) -> list[Tensor]:
    """Undo `pack`; bytes that follow are passed over."""
    raw = octets.numpy().tobytes()
    length = int.from_bytes(raw[:8], "little")
    found, place = [], 8 + length
    for name, shape in json.loads(raw[8:place]):
        kind = _KINDS[name]
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        values = (
            torch.frombuffer(bytearray(raw[place : place + size]), dtype=kind) if size else torch.empty(0, dtype=kind)
        )
        found.append(values.reshape(shape))
        place += size
    return found
