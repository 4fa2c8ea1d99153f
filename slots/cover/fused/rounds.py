"""The rounds of `slots.cover.parallel` on packed bits, as Triton kernels: nothing is unpacked.

A round is two kernels over the candidates. The first counts what each still covers and bids for it: the bid is the
round, the gain and the index in one integer, and the largest bid stays at each example. The second picks the candidates
whose bid stands at all they cover. Integers alone decide, so the order in which the device works does not matter.
Most words are 0, and most of the others after a round or two: each round writes what is left of a row to its place in a
second list, from which the next one reads, so that nothing has to wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from jaxtyping import Bool, Int
from torch import Tensor

from slots.cover.fused.round_kernels import bid_kernel, count_kernel, list_kernel, or_kernel, pick_kernel

_ROUNDS_BETWEEN_LOOKS = 8  # a look waits for the device, and forgets the candidates that have nothing left to cover
_MOST_CANDIDATES = 1 << 24  # gain and index take 24 bits each of a bid, the round 15
_MOST_ROUNDS = (1 << 15) - 1  # then they are counted anew: a chain of sets has one pick a round
_AT_ONCE, _WORDS_AT_ONCE = 4, 8  # candidates a program, and words of each


class PackedRows:
    """Packed coverage of several classes side by side, as the kernels read it.

    Parameters
    ----------
    blocks : sequence of int64 tensors of shape (candidate, word)
        One a class; views of one tensor that follow each other are taken as they lie, others are copied.
    """

    def __init__(self, blocks: Sequence[Int[Tensor, "candidate word"]]) -> None:
        self.words = _joined(blocks)
        self.device = self.words.device
        rows = np.array([len(block) for block in blocks], np.int64)
        widths = np.array([block.shape[1] for block in blocks], np.int64)
        self.n_rows, self.n_words = int(rows.sum()), int(widths.sum())
        self.widest = int(widths.max(initial=1))
        starts = [np.cumsum(part) - part for part in (rows, rows * widths, widths)]
        a_class = torch.from_numpy(np.stack([rows, *starts, widths])).to(self.device)
        first, word, opened, width = a_class[1:].repeat_interleave(a_class[0], dim=1, output_size=self.n_rows)
        self._within = torch.arange(self.n_rows, device=self.device) - first
        self._opened = opened
        self.where = (word + self._within * width, width, opened)
        """First word of each row, its width, and where the words of its class's examples begin."""

    def greedy(self, min_gain: int = 1) -> Int[Tensor, " candidate"]:
        """Exact greedy cover.

        Parameters
        ----------
        min_gain : int, default 1
            Uncovered examples a pick must cover (count, >= 1).

        Returns
        -------
        int64 tensor of shape (candidate,)
            What each candidate covered first, 0 for those not picked; candidates of all classes one after the other.

        Raises
        ------
        ValueError
            If there are 2**24 candidates or more.
        """
        if self.n_rows >= _MOST_CANDIDATES:
            raise ValueError(f"`blocks` must hold fewer than {_MOST_CANDIDATES} candidates, got {self.n_rows}.")
        device, n = self.device, self.n_rows
        now, begins, gains = self._listed()
        left = now.like()
        gain_at_pick = torch.zeros(n, dtype=torch.int32, device=device)
        still_open = torch.full((self.n_words,), -1, dtype=torch.int64, device=device)
        best = torch.zeros(64 * self.n_words, dtype=torch.int64, device=device)
        bids = torch.zeros(n, dtype=torch.int64, device=device)
        active = gains.argsort(descending=True, stable=True)  # who may win bids first, so that few bids are outbid
        sizes, this_round = {"BR": _AT_ONCE, "BW": _WORDS_AT_ONCE}, 0
        while len(active := active[gains[active] >= min_gain]):
            if this_round > _MOST_ROUNDS - _ROUNDS_BETWEEN_LOOKS:
                best.zero_()  # bids of rounds before would outbid those of round 1
                this_round = 0
            grid = (-(-len(active) // _AT_ONCE),)
            who = (begins, active, len(active), still_open, gains, bids, best)
            for _ in range(_ROUNDS_BETWEEN_LOOKS):
                this_round += 1
                bid_kernel[grid](*now.parts, *left.parts, *who, this_round, min_gain, n, **sizes)
                pick_kernel[grid](*left.parts, *who, gain_at_pick, min_gain, **sizes)
                now, left = left, now
        return gain_at_pick.long()

    def _listed(self) -> tuple[_Listed, Int[Tensor, " candidate"], Int[Tensor, " candidate"]]:
        """All words that are not 0; where each row's begin, and how many bits it has."""
        counts = torch.empty(self.n_rows, dtype=torch.int64, device=self.device)
        gains = torch.empty(self.n_rows, dtype=torch.int32, device=self.device)
        word, width, _ = self.where
        size = min(128, triton.next_power_of_2(self.widest))
        if self.n_rows:
            count_kernel[(self.n_rows,)](self.words, word, width, counts, gains, BC=size, num_warps=1)
        ends = counts.cumsum(0)
        begins = ends - counts
        total = int(ends[-1]) if self.n_rows else 0
        listed = _Listed(
            torch.empty(total, dtype=torch.int64, device=self.device),
            torch.empty(total, dtype=torch.int32, device=self.device),
            ends,
        )
        if total:
            list_kernel[(self.n_rows,)](
                self.words, *self.where, begins, listed.words, listed.places, BC=size, num_warps=1
            )
        return listed, begins, gains

    def union(self, chosen: Int[Tensor, " slot"]) -> Int[Tensor, " word"]:
        """What some rows cover together.

        Parameters
        ----------
        chosen : int64 tensor of shape (slot,)
            Rows, counted through all classes.

        Returns
        -------
        int64 tensor of shape (word,)
            The words of all classes, one after the other.
        """
        out = torch.zeros(self.n_words, dtype=torch.int64, device=self.device)
        if len(chosen) and self.n_words:
            size = min(128, triton.next_power_of_2(self.widest))
            or_kernel[(len(chosen),)](self.words, *self.where, chosen, out, BC=size, num_warps=1)
        return out

    def own_bits(self) -> Bool[Tensor, " candidate"]:
        """Whether each candidate covers the example at its own place, where the candidates are the examples."""
        return self._bit(self.words[self.where[0] + self._within // 64])

    def bits_of(self, words: Int[Tensor, " word"]) -> Bool[Tensor, " candidate"]:
        """The bit of each candidate's own place in words that `union` gave."""
        return self._bit(words[self._opened + self._within // 64])

    def _bit(self, words: Int[Tensor, " candidate"]) -> Bool[Tensor, " candidate"]:
        """The bit of each candidate's own place in the word that holds it."""
        bits: Tensor = (words >> (self._within % 64)) & 1
        return bits.bool()


@dataclass(frozen=True)
class _Listed:
    """The words that matter: those of row ``i`` from where it begins to ``ends[i]``."""

    words: Int[Tensor, " word"]
    places: Int[Tensor, " word"]  # among the words of the examples
    ends: Int[Tensor, " candidate"]

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """As the kernels take them."""
        return self.words, self.places, self.ends

    def like(self) -> _Listed:
        """Room for what a round leaves of them."""
        return _Listed(torch.empty_like(self.words), torch.empty_like(self.places), torch.empty_like(self.ends))


def _joined(blocks: Sequence[Tensor]) -> Int[Tensor, " word"]:
    """All rows in one tensor."""
    if not blocks:
        return torch.zeros(0, dtype=torch.int64)
    at = blocks[0].storage_offset()
    storage = blocks[0].untyped_storage()
    for block in blocks:
        together = block.untyped_storage().data_ptr() == storage.data_ptr() and block.storage_offset() == at
        if not together or not block.is_contiguous():
            return torch.cat([one.reshape(-1) for one in blocks])
        at += block.numel()
    total = at - blocks[0].storage_offset()
    return blocks[0].as_strided((total,), (1,), blocks[0].storage_offset())
