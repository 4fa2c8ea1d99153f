"""What share of familiar data the closed slots match: held-out examples are asked, by caps that know nothing of them.

The closed precision caps let in no example of another label, held-out ones included. So on these examples no answer of
the closed slots is ambiguous, whatever new data of the same kind will meet. Hence cross-fitting: a fifth of the
held-out examples at a time is asked with the precision caps that the other four fifths leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from slots.closing.caps import Reference, fold_in, limits_of
from slots.features.source import FeatureSource
from slots.head.decision import decide
from slots.head.exact_thresholds import PrecisionAccumulator
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares, Prediction
from slots.shapes import Ids, Thresholds

_PARTS = 5


@dataclass(frozen=True)
class LeftOut:
    """Held-out examples, and precision thresholds of all slots that know nothing of them.

    Parameters
    ----------
    examples : int64 array of shape (example,)
        Their ids.
    thresholds : float tensor of shape (slot,)
        Cosines with the weights.
    """

    examples: Ids
    thresholds: Thresholds


@torch.no_grad()
def fold_in_by_parts(data: Reference, held_out: Ids) -> list[LeftOut]:
    """Let the held-out examples narrow the precision caps (`fold_in`), and say how these would be without a part each.

    Parameters
    ----------
    data : Reference
        Slots, which are changed in place, and examples.
    held_out : int64 array
        Ids of the held-out examples.

    Returns
    -------
    list of LeftOut
        Of all held-out examples, each in one part; empty where there are none.

    Notes
    -----
    Where the head's precision is below 1 an example hardly moves a cap, so all are asked with the caps as they become.
    """
    head = data.head
    parts = np.array_split(np.random.default_rng(0).permutation(held_out), _PARTS) if head.precision == 1.0 else []
    limits = [torch.full_like(head.precision_thresholds, -1.0)]
    for part in parts:
        limits.append(limits_of(data, part, PrecisionAccumulator(head.weights.detach(), head.labels)))
    before = head.precision_thresholds
    fold_in(data, held_out)
    if not parts:
        return [LeftOut(held_out, head.precision_thresholds)] if len(held_out) else []
    others = [torch.stack(limits[: k + 1] + limits[k + 2 :]).amax(0) for k in range(_PARTS)]
    return [LeftOut(part, torch.maximum(before, limit)) for part, limit in zip(parts, others, strict=True) if len(part)]


@torch.no_grad()
def familiar_shares(source: FeatureSource, head: IncrementalNeuralHashing, parts: list[LeftOut]) -> AnswerShares | None:
    """How the closed slots answer held-out examples, each by caps that it took no part in narrowing.

    Parameters
    ----------
    source : FeatureSource
        The training data.
    head : IncrementalNeuralHashing
        The closed slots.
    parts : list of LeftOut
        As `fold_in_by_parts` gives them.

    Returns
    -------
    AnswerShares or None
        None where nothing was held out.
    """
    answers = []
    for part in parts:
        caps = replace(head.caps(), precision=part.thresholds)
        for rows in source.blocks(len(part.examples), columns=head.n_slots):
            answers.append(decide(source(part.examples[rows]), caps))
    return AnswerShares.of(Prediction.concatenate(answers)) if answers else None
