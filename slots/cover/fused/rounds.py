"""The rounds of `slots.cover.parallel` on packed bits, as Triton kernels: nothing is unpacked.

A round is two kernels over the candidates. The first counts what each still covers and bids for it: the bid is the
round, the gain and the index in one integer, and the largest bid stays at each example. The second picks the candidates
whose bid stands at all they cover. Integers alone decide, so the order in which the device works does not matter.
Most words are 0, and most of the others after a round or two: now and then those are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from jaxtyping import Bool, Int
from torch import Tensor

from slots.cover.fused.kernels import bid_kernel, or_kernel, pick_kernel

_ROUNDS_BETWEEN_LOOKS = 4  # a look waits for the device, and forgets the candidates that have nothing left to cover
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
        gain_at_pick = torch.zeros(n, dtype=torch.int32, device=device)
        still_open = torch.full((self.n_words,), -1, dtype=torch.int64, device=device)
        best = torch.zeros(64 * self.n_words, dtype=torch.int64, device=device)
        gains = torch.full((n,), np.iinfo(np.int32).max, dtype=torch.int32, device=device)
        bids = torch.zeros(n, dtype=torch.int64, device=device)
        listed, this_round = self._listed(), 0
        while len(listed.active):
            if this_round > _MOST_ROUNDS - _ROUNDS_BETWEEN_LOOKS:
                best.zero_()  # bids of rounds before would outbid those of round 1
                this_round = 0
            grid = (-(-len(listed.active) // _AT_ONCE),)
            lists = (listed.words, listed.places, listed.starts, listed.active, len(listed.active))
            for _ in range(min(1 + this_round, _ROUNDS_BETWEEN_LOOKS)):  # the first rounds cover most
                this_round += 1
                bid_kernel[grid](
                    *lists, still_open, gains, bids, best, this_round, min_gain, n, BR=_AT_ONCE, BW=_WORDS_AT_ONCE
                )
                open_after = still_open.clone()
                pick_kernel[grid](
                    *lists, still_open, open_after, gains, bids, best, gain_at_pick, min_gain,
                    BR=_AT_ONCE, BW=_WORDS_AT_ONCE,
                )  # fmt: skip
                still_open = open_after
            listed = listed.still(still_open, gains >= min_gain)
        return gain_at_pick.long()

    def _listed(self) -> _Listed:
        """All words that are not 0."""
        at = self.words.nonzero()[:, 0]
        word, _, opened = self.where
        row = torch.searchsorted(word, at, right=True) - 1
        place = at - word[row] + opened[row]
        starts = torch.searchsorted(at, torch.cat([word, word.new_full((1,), self.words.numel())]))
        active = torch.arange(self.n_rows, device=self.device)
        return _Listed(self.words[at], place.int(), starts.int(), active)

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
    """The words that matter, row after row."""

    words: Int[Tensor, " word"]
    places: Int[Tensor, " word"]  # among the words of the examples
    starts: Int[Tensor, " active_and_one"]
    active: Int[Tensor, " active"]

    def still(self, still_open: Int[Tensor, " open"], enough: Bool[Tensor, " candidate"]) -> _Listed:
        """What is left of it: rows that gain enough, words with something uncovered."""
        left = self.words & still_open[self.places.long()]
        row = torch.repeat_interleave(
            torch.arange(len(self.active), device=left.device), self.starts.diff(), output_size=len(left)
        )
        kept = ((left != 0) & enough[self.active][row]).nonzero()[:, 0]
        counts = torch.zeros(len(self.active), dtype=torch.long, device=left.device).index_add_(
            0, row[kept], torch.ones_like(kept)
        )
        rows = counts.nonzero()[:, 0]
        starts = torch.cat([counts.new_zeros(1), counts[rows].cumsum(0)]).int()
        return _Listed(left[kept], self.places[kept], starts, self.active[rows])


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
