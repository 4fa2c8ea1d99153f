"""Answers and novelty of the same inputs, from one pass through the backbone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.index.kept_index import KeptIndex
from slots.novelty.assessment import Novelty
from slots.novelty.slot_novelty import ModelNovelty, joined, judge, score_block


@dataclass(frozen=True)
class Examination:
    """All that a model says of a batch of inputs.

    Parameters
    ----------
    prediction : Prediction
        What `SlotModel.predict` gives.
    novelty : Novelty
        What `SlotModel.assess_novelty` gives.
    scores_by_fit : float64 array of shape (example,)
        Novelty scores where the slots of the fit alone judge, which no update changes: see
        `slots.novelty.slot_novelty.Scored`.
    """

    prediction: Prediction
    novelty: Novelty
    scores_by_fit: npt.NDArray[np.float64]


@torch.no_grad()
def examine(
    source: FeatureSource, head: IncrementalNeuralHashing, novelty: ModelNovelty, *, rate: float, index: KeptIndex
) -> Examination:
    """Answer inputs and say how foreign they are, block by block.

    Parameters
    ----------
    source : FeatureSource
        The inputs.
    head : IncrementalNeuralHashing
        The slots.
    novelty : ModelNovelty
        Metric and calibration.
    rate : float in (0, 1)
        Largest share of familiar inputs that may be called novel.
    index : KeptIndex
        What answers by the slots where that saves time.

    Returns
    -------
    Examination
    """
    there = novelty.to(head.centres.device)
    answer, _ = index.answerer(head.caps(), len(source) * source.featurizer.views.n_views)
    answers, scored = [], []
    for rows in source.blocks(columns=head.n_slots):
        features = source(rows)
        answers.append(answer(features))
        scored.append(score_block(features, head, there))
    whole = joined(scored)
    return Examination(Prediction.concatenate(answers), judge(whole, novelty, rate=rate), whole.scores_by_fit)
