"""Coverage packed into words of 64 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class CoverBlock:
    """Coverage among the candidates and examples of one class, eight examples a byte.

    Parameters
    ----------
    label : int
        Of the block's candidates and examples; 0 where there is one block only.
    candidates : int64 tensor of shape (candidate,)
        Their places in the whole set, ascending.
    examples : int64 tensor of shape (example,)
        Their places in the whole set.
    words : int64 tensor of shape (candidate, word)
        Bit ``b`` of word ``w`` of row ``i``: candidate ``i`` covers example ``64 w + b``.
    """

    label: int
    candidates: Int[Tensor, " candidate"]
    examples: Int[Tensor, " example"]
    words: Int[Tensor, "candidate word"]


def pack_bits(covers: Bool[Tensor, "candidate example"]) -> Int[Tensor, "candidate word"]:
    """Pack a bool matrix into 64-bit words, the first example in the lowest bit.

    Parameters
    ----------
    covers : bool tensor of shape (candidate, example)
        True where a candidate covers an example.

    Returns
    -------
    int64 tensor of shape (candidate, ceil(example / 64))
        On the same device.

    Examples
    --------
    >>> pack_bits(torch.tensor([[True, True, False], [False, False, True]]))
    tensor([[3],
            [4]])
    """
    n, columns = covers.shape
    width = -(-columns // 64)
    if covers.device.type == "cpu":
        octets = np.zeros((n, 8 * width), np.uint8)
        octets[:, : -(-columns // 8)] = np.packbits(covers.numpy(), axis=1, bitorder="little")
        return torch.from_numpy(octets.view("<i8").astype(np.int64, copy=False))
    return _pack_on_device(covers)


def _pack_on_device(covers: Bool[Tensor, "candidate example"]) -> Int[Tensor, "candidate word"]:
    """`pack_bits` in plain torch, for devices where NumPy cannot go."""
    n, columns = covers.shape
    padded = torch.zeros(n, 64 * -(-columns // 64), dtype=torch.uint8, device=covers.device)
    padded[:, :columns] = covers
    weights = 2 ** torch.arange(8, device=covers.device, dtype=torch.uint8)
    octets = (padded.view(n, padded.shape[1] // 8, 8) * weights).sum(-1, dtype=torch.uint8)
    return octets.view(torch.int64) if octets.numel() else octets.new_zeros(n, octets.shape[1] // 8).long()


def unpack_bits(words: Int[Tensor, "candidate word"], n_examples: int) -> Bool[Tensor, "candidate example"]:
    """Undo `pack_bits`.

    Parameters
    ----------
    words : int64 tensor of shape (candidate, word)
        As `pack_bits` makes them.
    n_examples : int
        Columns wanted; at most 64 a word.

    Returns
    -------
    bool tensor of shape (candidate, n_examples)
    """
    places = torch.arange(64, device=words.device)
    return ((words[:, :, None] >> places) & 1).bool().flatten(1)[:, :n_examples]


def as_words(words: Int[Tensor, "candidate word"]) -> npt.NDArray[np.uint64]:
    """View packed rows as the kernels want them; copies only what is not contiguous."""
    return np.ascontiguousarray(words.numpy()).view(np.uint64)
