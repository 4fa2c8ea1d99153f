"""Thresholds over a whole training set that arrives in blocks: exact, and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from slots.distributed import ALONE, Ranks
from slots.head.similarities import best_view, normalize
from slots.head.thresholds import precision_thresholds
from slots.rounding import FLOAT32_GAP, full_product, strictly_above
from slots.shapes import Labels, SlotLabels, SlotVectors, Thresholds, ViewFeatures

Blocks = Callable[[], Iterator[tuple[ViewFeatures, Labels]]]
"""Starts a pass over a reference set: blocks of view features with their labels."""

_RIVALS = 4  # other-label examples kept a slot; more than one because float32 may order near ties wrongly
_LAST = 0xFFFFFFFF  # places of examples fit into the lower half of a key
_NONE = -0x7F800001 << 32  # key of minus infinity, behind all others of it
_PASS_FLOATS = 1 << 26  # scores held at once when precision < 1: 256 MB


class PrecisionAccumulator:
    """Precision thresholds at ``precision = 1`` over blocks, exact to float64 rounding.

    For each slot the few most similar views of other labels are kept with their features; the score that decides is
    computed from them in float64. So the result does not depend on block sizes, threads, devices or processes; of equal
    scores those of the first examples are kept.

    Parameters
    ----------
    weights : float tensor of shape (slot, feature)
        Unit up to float32 rounding.
    labels : int64 tensor of shape (slot,)
        Label of each slot.

    Examples
    --------
    >>> acc = PrecisionAccumulator(torch.eye(2), torch.tensor([0, 1]))
    >>> acc.update(torch.tensor([[[0.6, 0.8]]]), torch.tensor([1]))
    >>> acc.thresholds()
    tensor([ 0.6000, -1.0000])
    """

    def __init__(self, weights: SlotVectors, labels: SlotLabels) -> None:
        self._weights, self._labels = weights, labels
        n, feature = weights.shape
        self._keys = torch.full((_RIVALS, n), _NONE, device=weights.device)
        self._rows = torch.zeros(_RIVALS, n, feature, device=weights.device)
        self._seen = 0

    @torch.no_grad()
    def update(
        self,
        features: ViewFeatures,
        labels: Labels,
        best: tuple[Tensor, Tensor] | None = None,
        *,
        first: int | None = None,
    ) -> None:
        """Take in a block.

        Parameters
        ----------
        features : float tensor of shape (example, view, feature)
            Raw features of the block; any scale.
        labels : int64 tensor of shape (example,)
            Label of each example.
        best : pair of tensors of shape (example, slot), optional
            `best_view` of the scores, where the caller has it already.
        first : int, optional
            Place of the block's first example among all, where other processes take in other blocks. Default: behind
            those taken in before.
        """
        first = self._seen if first is None else first
        self._seen = first + len(features)
        if len(features) == 0 or len(self._labels) == 0:
            return
        scores, views = best_view(full_product(normalize(features.float()), self._weights.T)) if best is None else best
        foreign = scores.masked_fill(labels[:, None] == self._labels, -math.inf)
        keys, example = _keys(foreign, first).topk(min(_RIVALS, len(foreign)), dim=0)
        rows = features[example, views.gather(0, example)].float()
        self._keys, order = torch.cat([self._keys, keys]).topk(_RIVALS, dim=0)
        self._rows = torch.cat([self._rows, rows]).gather(0, order[..., None].expand(-1, -1, rows.shape[-1]))

    def thresholds(self, ranks: Ranks = ALONE) -> Thresholds:
        """Return float32 thresholds strictly above every other-label score seen, by any process; -1 where none was."""
        exact = (normalize(self._rows.double()) * normalize(self._weights.double())).sum(-1)
        everyone = [torch.stack(row) for row in zip(*ranks.gather([self._keys, exact]), strict=True)]
        keys, order = everyone[0].flatten(0, 1).topk(_RIVALS, dim=0)
        scores = _scores(keys)
        exact = everyone[1].flatten(0, 1).gather(0, order).masked_fill(scores == -math.inf, -math.inf).amax(0)
        # Where all that were kept tie within float32 error, a higher one may have been left out.
        crowded = scores[-1] > scores[0] - 2 * FLOAT32_GAP
        exact = torch.where(crowded, exact + FLOAT32_GAP, exact)
        return torch.where(exact == -math.inf, torch.full_like(scores[0], -1.0), strictly_above(exact))


def _keys(scores: Tensor, first: int) -> Tensor:
    """Float32 scores of shape (example, slot) as int64 numbers of the same order, the first of equal ones largest."""
    bits = scores.float().contiguous().view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # numbers whose order is that of the floats
    places = torch.arange(first, first + len(scores), device=scores.device)
    return (ordered << 32) + (_LAST - places)[:, None]


def _scores(keys: Tensor) -> Tensor:
    """The scores in `_keys`."""
    ordered = (keys >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


@torch.no_grad()
def precision_thresholds_over(
    blocks: Blocks, weights: SlotVectors, slot_labels: SlotLabels, *, precision: float, n_examples: int
) -> Thresholds:
    """Precision thresholds over a whole reference set, for any wanted precision.

    Parameters
    ----------
    blocks : callable
        Starts a pass over the reference; called once for ``precision = 1``, once for each group of slots below 1.
    weights : float tensor of shape (slot, feature)
        Unit up to float32 rounding.
    slot_labels : int64 tensor of shape (slot,)
        Label of each slot.
    precision : float in (0, 1]
        Share of own examples wanted above a slot's threshold; at 1 the largest score of another label decides alone.
    n_examples : int
        Size of the reference; it decides how many slots a pass can hold.

    Returns
    -------
    float32 tensor of shape (slot,)
        A slot fires strictly above it. At least -1.
    """
    if precision == 1.0:
        accumulator = PrecisionAccumulator(weights, slot_labels)
        for features, labels in blocks():
            accumulator.update(features, labels)
        return accumulator.thresholds()
    step = max(1, _PASS_FLOATS // max(1, n_examples))
    parts = [weights.new_zeros(0)]
    for i in range(0, len(weights), step):
        scores: list[Tensor] = []
        found_labels: list[Tensor] = []
        for features, block_labels in blocks():
            scores.append(best_view(full_product(normalize(features.float()), weights[i : i + step].T))[0])
            found_labels.append(block_labels)
        found = precision_thresholds(
            torch.cat(scores), slot_labels[i : i + step], torch.cat(found_labels), precision=precision
        )
        parts.append(strictly_above(found.double()).clamp_min(-1))
    return torch.cat(parts)
