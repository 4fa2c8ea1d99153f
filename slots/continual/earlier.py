"""What earlier versions of a continual learner pickled, and what it lacks today."""
# ruff: noqa: SLF001 - the learner's own state

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import default_rng

from slots.continual.buffer import PendingBuffer
from slots.continual.evidence import ClassEvidence
from slots.continual.space import Space


def complete(learner: Any, state: dict[str, Any]) -> None:
    """Add to a `ContinualSlots` what its pickle does not hold.

    Parameters
    ----------
    learner : ContinualSlots
        Just made from ``state``; it goes on as it was.
    state : dict
        What pickle kept.
    """
    if hasattr(learner, "slots_") and "_space" not in state:
        learner._space, learner._first = Space(), (np.zeros((0, learner.n_features_in_)), np.zeros(0, np.int64))
    if hasattr(learner, "slots_") and not hasattr(learner, "_draws"):
        learner.held_out, learner._draws = 750, default_rng(learner._seed)
        means, old = learner.evidence_.means, learner._waiting
        learner.evidence_ = ClassEvidence(means, ClassEvidence.empty(means.shape[1]).weights)
        ranks = learner._draws.random(len(old.ids)).astype(np.float32)
        learner._waiting = PendingBuffer(old.codes, old.scales, old.ids.astype(np.int32), ranks)
