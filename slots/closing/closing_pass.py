"""The closing pass: exact caps over the whole training set, then only the slots that earn their place.

After training the thresholds of the last batches are thrown away. (1) The fit part gives each slot its precision
threshold, its owned examples, its centre. (2) Owned examples and the held-out part give the support caps. (3) The
held-out part gives each slot its precision on data it was not fitted to; then those examples are folded in. (4) A set
cover among the slots drops what nobody needs, and a cover of the unmatched adds what is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.closing.caps import (
    Reference,
    assign_owners,
    measure_precision,
    owned_scores,
    pick_exemplars,
    set_support_caps,
)
from slots.closing.config import ClosingConfig, ClosingReport
from slots.closing.reduction import drop_redundant
from slots.closing.residual_cover import cover_unmatched
from slots.closing.shrinkage import shrink_support
from slots.features.exemplars import support_features, thumbnails
from slots.features.source import FeatureSource
from slots.head.decision import decide
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.novelty.slot_novelty import ModelNovelty, learn_novelty
from slots.progress import Progress
from slots.shapes import Ids


@dataclass(frozen=True)
class Closed:
    """What the closing pass gives beside the head, which it changes: the other parts of a fitted model.

    Parameters
    ----------
    report : ClosingReport
        What was dropped and added, and what the closed model answers on the training data.
    novelty : ModelNovelty or None
        None where too few examples were held out.
    exemplar_features : float16 tensor of shape (slot, exemplar, feature)
        As `support_features` gives them.
    exemplar_images : uint8 array of shape (slot, exemplar, height, width, channel), strings, or None
        As `thumbnails` gives them; None for features.
    """

    report: ClosingReport
    novelty: ModelNovelty | None
    exemplar_features: Tensor
    exemplar_images: npt.NDArray[Any] | None


@torch.no_grad()
def close_fit(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    *,
    held_out: Ids,
    config: ClosingConfig,
    progress: Progress,
) -> Closed:
    """Close a fit: exact caps over the whole training set, and a set cover of the slots (see the module's head).

    Parameters
    ----------
    source : FeatureSource
        The whole training set, held-out part included.
    head : IncrementalNeuralHashing
        Trained; changed in place.
    y : int64 array of shape (example,)
        Labels of the training set.
    held_out : int64 array
        Ids of the examples that training did not see; may be empty.
    config : ClosingConfig
        How many slots may stay, and how wide support caps are.
    progress : callable
        Told the progress.

    Returns
    -------
    Closed
    """
    data = Reference(head, source.fill(progress), torch.from_numpy(y).to(head.labels.device), progress)
    fitted = np.setdiff1d(np.arange(len(y)), held_out)
    full = config.mode == "full"
    owners, accumulator = assign_owners(data, fitted)
    example, owner, inside, near = owned_scores(data, fitted, owners)
    pick_exemplars(data, example, owner, near)
    fires = inside > -math.inf
    quantile = 0.0 if full else config.quantile
    slack = set_support_caps(
        data, (owner[fires], inside[fires]), held_out, quantile=quantile, share=config.support_share
    )
    measure_precision(data, held_out, accumulator)
    min_gain = max(2, len(y) // 5000) if config.min_gain is None else config.min_gain
    counts = torch.bincount(owners[owners >= 0], minlength=head.n_slots)
    matched, foreign, dropped = drop_redundant(data, np.arange(len(y)), counts >= min_gain)
    # Before examples become slots.
    novelty = learn_novelty(source, head, y, fitted=fitted, held_out=held_out, progress=progress)
    matched_before = matched.copy()
    added, contradictions = cover_unmatched(
        source,
        head,
        y,
        matched=matched,
        min_gain=1 if full else min_gain,
        max_candidates=len(y) if full else config.max_candidates,
        slack=slack,
        progress=progress,
    )
    remembered = support_features(source, head.centres, head.exemplars)
    has_images = source.featurizer.preprocessing.kind != "features"
    images = thumbnails(source.x, head.exemplars.cpu().numpy()) if has_images else None
    labels = y.copy()
    unsure = np.flatnonzero(~matched_before | foreign)  # all others have matches, and of their own label alone
    if config.reach < 1:
        shrink_support(source, head, held_out, reach=config.reach, progress=progress)
        unsure = np.arange(len(y))
    answers = answer(source, head, unsure, progress)
    labels[unsure] = answers.labels
    matched = np.ones(len(y), bool)
    matched[unsure] = answers.matched
    return Closed(ClosingReport(dropped, added, slack, contradictions, labels, matched), novelty, remembered, images)


def answer(source: FeatureSource, head: IncrementalNeuralHashing, ids: Ids, progress: Progress) -> Prediction:
    """The slots' answers to some examples of a source; ``progress("measuring", share)`` is told the progress."""
    caps, parts = head.caps(), []
    for rows in source.blocks(len(ids), columns=head.n_slots):
        progress("measuring", rows.stop / len(ids))
        parts.append(decide(source(ids[rows]), caps))
    return Prediction.concatenate(parts)
