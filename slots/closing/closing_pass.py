"""The closing pass: exact caps over the whole training set, then only the slots that earn their place.

After training the thresholds of the last batches are thrown away. (1) The fit part gives each slot its precision
threshold, its owned examples, its centre. (2) Owned examples and the held-out part give the support caps. (3) A set
cover among the slots drops what nobody needs, and a cover of the unmatched adds what is missing. (4) Caps beside rare
classes get smaller, and examples that set nothing decide how much smaller all must be for matched answers to be right
as often as was asked. (5) They give each slot its precision on data it was not fitted to, and are folded in.
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
    fold_in,
    measure_precision,
    owned_scores,
    pick_exemplars,
    set_support_caps,
)
from slots.closing.config import ClosingConfig, ClosingReport
from slots.closing.evidence import Evidence, ask
from slots.closing.familiar import familiar_shares, fold_in_by_parts
from slots.closing.rarity import allow_for_rare
from slots.closing.reduction import drop_redundant
from slots.closing.residual_cover import cover_unmatched
from slots.closing.shrinkage import shrink_support
from slots.closing.vouching import Vouching, calibrate, measure, tighten, with_course
from slots.features.exemplars import support_features, thumbnails
from slots.features.source import FeatureSource
from slots.head.decision import decide
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import AnswerShares, Prediction
from slots.novelty.left_out.measures import CrossMeasures, learn_from_left_out
from slots.novelty.slot_novelty import ModelNovelty, learn_novelty, measure_familiar
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
    familiar : AnswerShares or None
        How held-out examples are answered; None where nothing was held out, or every example is matched (mode
        ``full``).
    """

    report: ClosingReport
    novelty: ModelNovelty | None
    exemplar_features: Tensor
    exemplar_images: npt.NDArray[Any] | None
    familiar: AnswerShares | None


@torch.no_grad()
def close_fit(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    *,
    held_out: Ids,
    config: ClosingConfig,
    progress: Progress,
    evidence: Evidence | None = None,
    measures: CrossMeasures | None = None,
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
    evidence : Evidence, optional
        What heads made in the same way answered to examples that trained nothing. Default: the held-out part is asked.
    measures : CrossMeasures, optional
        How novel such examples were to them. Default: the held-out part sets the scales and calibrates.

    Returns
    -------
    Closed
    """
    data = Reference(head, source.fill(progress), torch.from_numpy(y).to(head.labels.device), progress)
    fitted = np.setdiff1d(np.arange(len(y)), held_out)
    drawn = set_caps(data, fitted, held_out, config)
    # Before examples become slots.
    if measures is None:
        novelty = learn_novelty(source, head, y, fitted=fitted, held_out=held_out, progress=progress)
    else:
        novelty = learn_from_left_out(source, head, y, measures, fitted=fitted, progress=progress)
    matched_before = drawn.matched.copy()
    added, contradictions = add_missing(data, y, fitted, drawn, config)
    smaller = config.vouch is not None and config.mode != "full" and allow_for_rare(data, fitted)
    vouching = _vouch(data, y, held_out, config, drawn.evidence or evidence)
    left_out = []
    if config.mode != "full":
        measure_precision(data, held_out)
        left_out = fold_in_by_parts(data, held_out)
    if novelty is not None and measures is None:
        novelty = measure_familiar(source, head, novelty, None if config.mode == "full" else held_out)
    remembered = support_features(source, head.centres, head.exemplars)
    has_images = source.featurizer.preprocessing.kind != "features"
    images = thumbnails(source.x, head.exemplars.cpu().numpy()) if has_images else None
    labels = y.copy()
    unsure = np.flatnonzero(~matched_before | drawn.foreign)  # all others have matches, and of their own label alone
    if config.reach < 1:
        shrink_support(source, head, held_out, reach=config.reach, progress=progress)
    if smaller or config.reach < 1 or len(held_out) or (vouching is not None and vouching.angle > 0):
        unsure = np.arange(len(y))  # caps became smaller since
    answers = answer(source, head, unsure, progress)
    labels[unsure] = answers.labels
    matched = np.ones(len(y), bool)
    matched[unsure] = answers.matched
    report = ClosingReport(drawn.n_dropped, added, drawn.slack, contradictions, labels, matched, vouching)
    return Closed(report, novelty, remembered, images, familiar_shares(source, head, left_out))


def _vouch(
    data: Reference, y: npt.NDArray[np.int64], held_out: Ids, config: ClosingConfig, evidence: Evidence | None
) -> Vouching | None:
    """Shrink the caps as far as the evidence asks for."""
    full, open_share = config.mode == "full", config.open_share or 0.0
    if evidence is None:
        evidence = ask(data.source, data.head, y, held_out)
    vouching = None
    if config.vouch is not None and evidence.n:
        # Who tolerates wrong labels above a threshold cannot be promised fewer of them on new data.
        level = min(config.vouch, data.head.precision)
        vouching = measure(evidence, level) if full else calibrate(evidence, level, open_share=open_share)
        if not full:
            # Slots made of single examples stay only where more can be vouched for with them than without.
            alone = calibrate(evidence.of_trained(), vouching.level, open_share=open_share)
            without = alone.shown >= vouching.shown and alone.n_matched >= vouching.n_matched
            vouching = with_course(*((alone, evidence.of_trained()) if without else (vouching, evidence)))
            tighten(data.head, vouching.angle)
            data.head.drop_slots(data.head.pooled | ((data.head.support_thresholds <= 1) & (not without)))
    return vouching


@dataclass(frozen=True)
class DrawnCaps:
    """What became of the trained slots, and whom those that stayed match.

    Parameters
    ----------
    slack : float
        Radians by which held-out data widened the support caps.
    n_dropped : int
        Slots that the cover does without.
    min_gain : int
        Examples that a slot must match to stay or to be added.
    matched, foreign : bool arrays of shape (example,)
        Fitted examples that a slot of their own label matches, or one of another.
    evidence : Evidence or None
        Of the held-out examples, where they have set caps since (mode ``full``).
    """

    slack: float
    n_dropped: int
    min_gain: int
    matched: npt.NDArray[np.bool_]
    foreign: npt.NDArray[np.bool_]
    evidence: Evidence | None


def set_caps(data: Reference, fitted: Ids, held_out: Ids, config: ClosingConfig) -> DrawnCaps:
    """Exact caps of the trained slots from the fitted examples, and only the slots that a cover needs.

    Parameters
    ----------
    data : Reference
        Slots, which are changed in place, and examples.
    fitted, held_out : int64 arrays
        Examples that set the caps, and those that say how much wider support caps must be.
    config : ClosingConfig
        How many slots may stay.
    """
    full = config.mode == "full"
    owners = assign_owners(data, fitted)
    example, owner, inside, near = owned_scores(data, fitted, owners)
    pick_exemplars(data, example, owner, near)
    fires = inside > -math.inf
    quantile = 0.0 if full else config.quantile
    slack = set_support_caps(
        data, (owner[fires], inside[fires]), held_out, quantile=quantile, share=config.support_share
    )
    evidence = None
    if full:  # promises a match to every example, so that all of them must have set the caps before any is added
        evidence = ask(data.source, data.head, data.y.cpu().numpy(), held_out)
        measure_precision(data, held_out)
        fold_in(data, held_out)
    min_gain = max(2, len(data.y) // 5000) if config.min_gain is None else config.min_gain
    counts = torch.bincount(owners[owners >= 0], minlength=data.head.n_slots)
    matched, foreign, dropped = drop_redundant(data, np.arange(len(data.y)) if full else fitted, counts >= min_gain)
    return DrawnCaps(slack, dropped, min_gain, matched, foreign, evidence)


def add_missing(
    data: Reference, y: npt.NDArray[np.int64], fitted: Ids, drawn: DrawnCaps, config: ClosingConfig
) -> tuple[int, Ids]:
    """Examples as slots for what is unmatched; returns how many, and those that contradict others.

    Parameters
    ----------
    data : Reference
        Slots, which are changed in place, and examples.
    y : int64 array of shape (example,)
        Labels.
    fitted : int64 array
        Examples to look at.
    drawn : DrawnCaps
        Its ``matched`` is updated in place.
    config : ClosingConfig
        How many slots may be added.
    """
    full = config.mode == "full"
    return cover_unmatched(
        data.source,
        data.head,
        y,
        matched=drawn.matched,
        among=np.arange(len(y)) if full else fitted,
        min_gain=1 if full else drawn.min_gain,
        max_candidates=len(y) if full else config.max_candidates,
        slack=drawn.slack,
        progress=data.progress,
    )


def answer(source: FeatureSource, head: IncrementalNeuralHashing, ids: Ids, progress: Progress) -> Prediction:
    """The slots' answers to some examples of a source; ``progress("measuring", share)`` is told the progress."""
    caps = head.caps()

    def work(rows: slice) -> tuple[Tensor, ...]:
        progress("measuring", rows.stop / len(ids))
        return tuple(map(torch.from_numpy, vars(decide(source(ids[rows]), caps)).values()))

    found = source.each_block(len(ids), work, columns=head.n_slots)
    return Prediction.concatenate([Prediction(*(column.numpy() for column in part)) for part in found])
