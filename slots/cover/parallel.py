"""Exact greedy set cover in parallel rounds: for GPUs, and for examples spread over processes.

A candidate's key is its gain, then its index (lower first). A round picks every candidate whose key beats those of
all candidates that share an uncovered example with it. Until such a candidate is picked, none of the examples it
still covers can be taken by another, so the sequential greedy finds it with the same gain: the picks are the same. The
sequential greedy takes equal gains in the order of the index, and gains never rise; so sorting the picks by (gain,
index) gives its order too. A few dozen rounds replace thousands of steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from slots.distributed import ALONE, Ranks

_ROUNDS_BETWEEN_LOOKS = 4  # a look costs a round trip to the device; rounds after the last one change nothing


@torch.no_grad()
def greedy_rounds(
    candidates: Int[Tensor, " pair"],
    examples: Int[Tensor, " pair"],
    *,
    n_candidates: int,
    n_examples: int,
    min_gain: int = 1,
    ranks: Ranks = ALONE,
) -> tuple[Int[Tensor, " slot"], Int[Tensor, " slot"]]:
    """Greedy set cover of (candidate, example) pairs, on whatever device they are.

    Parameters
    ----------
    candidates, examples : int64 tensors of shape (pair,)
        Candidate ``candidates[p]`` covers example ``examples[p]``; no pair twice.
    n_candidates, n_examples : int
        Candidates over all blocks (count).
    min_gain : int, default 1
        Uncovered examples a pick must cover (count, >= 1).
    ranks : Ranks, default ALONE
        Processes that each hold examples of their own, and the pairs of these; all number the candidates alike.

    Returns
    -------
    picks : int64 tensor of shape (slot,)
        The sequential greedy's picks in its order.
    gains : int64 tensor of shape (slot,)
        Examples each covered first.

    Notes
    -----
    A round costs two integer reductions over the pairs that are still open; integers make them independent of the
    order in which the device adds. Several processes add theirs up twice a round: one number a candidate.
    """
    device = candidates.device
    if not int(ranks.total(torch.tensor([len(candidates)]))):
        return (torch.zeros(0, dtype=torch.long, device=device),) * 2
    gain_at_pick = torch.zeros(n_candidates, dtype=torch.long, device=device)
    reversed_ids = torch.arange(n_candidates - 1, -1, -1, device=device)
    while True:
        uncovered = torch.zeros(n_examples, dtype=torch.bool, device=device)
        uncovered[examples] = True
        for _ in range(_ROUNDS_BETWEEN_LOOKS):
            gains = torch.zeros(n_candidates, dtype=torch.long, device=device)
            gains.scatter_add_(0, candidates, uncovered[examples].long())
            gains = ranks.total(gains)
            keys = torch.where(gains >= min_gain, gains * n_candidates + reversed_ids, -1)
            bids = torch.where(uncovered[examples], keys[candidates], -1)
            best = torch.full((n_examples,), -1, dtype=torch.long, device=device)
            best.scatter_reduce_(0, examples, bids, "amax")
            wins = torch.zeros(n_candidates, dtype=torch.long, device=device)
            wins.scatter_add_(0, candidates, ((bids >= 0) & (bids == best[examples])).long())
            picked = (keys >= 0) & (ranks.total(wins) == gains)
            gain_at_pick = torch.where(picked, gains, gain_at_pick)
            winner = n_candidates - 1 - best.clamp_min(0) % n_candidates
            uncovered &= ~((best >= 0) & picked[winner])  # a pick is the best at all it covers
        useful = uncovered[examples] & (gains >= min_gain)[candidates]
        if not bool(ranks.total(useful.any().long())):
            break
        still_open = uncovered[examples]
        candidates, examples = candidates[still_open], examples[still_open]
    picks = gain_at_pick.nonzero()[:, 0]
    order = gain_at_pick[picks].argsort(descending=True, stable=True)
    return picks[order], gain_at_pick[picks[order]]
