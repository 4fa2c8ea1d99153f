"""Who covers whom, as bits: a cap covers an example when the score lies above the cap's threshold."""

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
    padded = torch.zeros(n, 64 * width, dtype=torch.bool, device=covers.device)
    padded[:, :columns] = covers
    octets_there = (padded.view(n, 8 * width, 8) << torch.arange(8, device=covers.device)).sum(-1).to(torch.uint8)
    return octets_there.view(torch.int64)


def unpack_bits(words: Int[Tensor, "candidate word"], n_examples: int) -> Bool[Tensor, "candidate example"]:
    """Undo `pack_bits`.

    Parameters
    ----------
    words : int64 tensor of shape (candidate, word)
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
