"""`class_cover` of examples that lie in several processes: the picks and thresholds of one process, bit for bit.

A process keeps the features of its own examples, and of all candidates only which of its own examples they cover.
Candidates go round in pieces: each process says how near an example of another label comes, the largest is the cap,
and each packs its own bits of it. The greedy then runs in rounds (`slots.cover.parallel`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from slots.cover.bits import unpack_bits
from slots.cover.by_class import CoverResult
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.greedy import check_limits
from slots.cover.parallel import greedy_rounds
from slots.distributed import Ranks
from slots.errors import DataError
from slots.shapes import Features, Labels, Thresholds

_PIECE = 4096
"""Candidates of each process that go round at once."""

_ROWS_UNPACKED = 256


@torch.no_grad()
def class_cover_over_ranks(
    features: Features,
    labels: Labels,
    ranks: Ranks,
    *,
    max_slots: int | None = None,
    min_gain: int = 1,
    piece: int = _PIECE,
) -> CoverResult:
    """Choose few examples of all processes whose caps match every example of their label and none of another.

    Parameters
    ----------
    features : float32 tensor of shape (example, feature)
        Raw features of this process's examples; the whole set is those of the first process, then of the second, and so
        on. Any number, also none.
    labels : int64 tensor of shape (example,)
        Label of each.
    ranks : Ranks
        The processes.
    max_slots, min_gain
        As in `slots.cover.class_cover`.
    piece : int, default 4096
        Candidates of each process looked at together (count, >= 1); it changes the memory needed, never the result.

    Returns
    -------
    CoverResult
        The same picks and thresholds in all processes; ``covered`` is of this process's examples, ``picked`` and
        ``contradictions`` are places in the whole set.

    Raises
    ------
    DataError
        If processes hold different numbers of features.
    ValueError
        If a limit is out of its range.

    Notes
    -----
    Moved to each process: all features once (``4 n d`` bytes), one threshold and two numbers of a round a candidate.
    Kept: 16 bytes for each example of a class and candidate that covers it.
    """
    check_limits(max_slots, min_gain, 1.0)
    if piece < 1:
        raise ValueError(f"`piece` must be at least 1, got {piece}. Leave it out for the default.")
    shapes = [row[0].tolist() for row in ranks.gather([torch.tensor([*features.shape, len(labels)])])]
    if len({shape[1] for shape in shapes}) > 1 or any(shape[0] != shape[2] for shape in shapes):
        raise DataError(
            f"`features` must have shape (example, feature) with a label each, of one width in all processes, got "
            f"(example, feature, label) {shapes}. Divide one array by its rows."
        )
    sizes = [shape[0] for shape in shapes]
    starts = torch.tensor([0, *sizes]).cumsum(0).to(labels.device)
    n, first = sum(sizes), int(starts[ranks.rank])
    thresholds = torch.full((n,), -math.inf, device=labels.device)
    pairs: list[tuple[Tensor, Tensor]] = []
    for ids, unit, of in _pieces(features, labels, starts, piece, ranks):
        limit = torch.full((len(ids),), -math.inf, device=labels.device)
        thresholds[ids] = ranks.largest(cap_thresholds(unit, of, features, labels) if len(labels) else limit)
        pairs += [(ids[mine], own) for mine, own in _covered_by(unit, of, thresholds[ids], features, labels)]
    none = labels.new_zeros(0)
    candidates, examples = (torch.cat([none, *column]) for column in zip(*pairs, (none, none), strict=True))
    picked, _ = greedy_rounds(
        candidates, examples, n_candidates=max(1, n), n_examples=len(labels), min_gain=min_gain, ranks=ranks
    )
    picked = picked[:max_slots]
    covered = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    covered[examples[torch.isin(candidates, picked)]] = True
    selfless = torch.ones_like(covered)
    selfless[examples[candidates == examples + first]] = False
    alone = torch.cat([row[0] for row in ranks.gather([selfless.nonzero()[:, 0] + first])])
    return CoverResult(picked, thresholds[picked], covered, alone)


def _pieces(
    features: Features, labels: Labels, starts: Tensor, piece: int, ranks: Ranks
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Numbers, features and labels of the candidates, a piece of each process at a time."""
    most = int(starts.diff().max())
    for i in range(0, most, piece):
        rows = ranks.gather([features[i : i + piece], labels[i : i + piece]])
        here = [
            start + i + torch.arange(len(row[1]), device=labels.device)
            for row, start in zip(rows, starts[:-1], strict=True)
        ]
        yield torch.cat(here), torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


def _covered_by(
    candidates: Features, candidate_labels: Labels, thresholds: Thresholds, features: Features, labels: Labels
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a candidate's place and an example of this process that it covers."""
    for block in coverage_bits(candidates, candidate_labels, thresholds, features, labels):
        for i in range(0, len(block.words), _ROWS_UNPACKED):
            row, column = unpack_bits(block.words[i : i + _ROWS_UNPACKED], len(block.examples)).nonzero(as_tuple=True)
            yield block.candidates[i + row], block.examples[column]
