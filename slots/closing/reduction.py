"""Slots that a cover of the training data does without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.closing.caps import Reference
from slots.cover.greedy import greedy_set_cover
from slots.head.decision import matching_pairs
from slots.shapes import Ids


def drop_redundant(
    data: Reference, ids: Ids, needed: Tensor
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], int]:
    """Drop slots that neither the cover needs nor enough examples own.

    ``ids`` are those that count. Returns, of all examples, who is matched by a slot of its own label, who by one of
    another (none at precision 1), and how many went.
    """
    head = data.head

    def work(_first: int, part: Ids, features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        example, slot = matching_pairs(features, head.caps())
        own = labels[example] == head.labels[slot]
        example = torch.from_numpy(part).to(example.device)[example]
        return example[own], slot[own], example[~own]

    head.hits.zero_()
    example, slot, others = (torch.cat(it) for it in zip(*data.each_block(ids, "matching", work), strict=True))
    foreign = np.zeros(len(data.y), bool)
    foreign[others.cpu().numpy()] = True
    head.hits += torch.bincount(slot, minlength=head.n_slots)
    keep = needed.clone()
    for label in head.labels.unique():
        mine = (head.labels == label).nonzero()[:, 0]
        of_label = head.labels[slot] == label
        rows, column = example[of_label].unique(return_inverse=True)
        covers = torch.zeros(len(mine), len(rows), dtype=torch.bool, device=mine.device)
        covers[torch.searchsorted(mine, slot[of_label]), column] = True
        keep[mine[greedy_set_cover(covers).to(mine.device)]] = True
        if not bool(keep[mine].any()):
            keep[mine[0]] = True  # a label once learned keeps at least one slot to be named by
    matched = np.zeros(len(data.y), bool)
    matched[example.cpu().numpy()] = True
    head.drop_slots(keep)
    return matched, foreign, int((~keep).sum())
