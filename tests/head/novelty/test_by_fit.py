"""Novelty of a model that learned since its fit: by all slots to the letter, and by those of the fit alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import reference_classes as literal
from support.nets import blobs

from slots.model.editing import delete
from slots.novelty.slot_novelty import recalibrate
from slots.training.config import TrainConfig
from slots.training.fitting import fit


@pytest.fixture(scope="module")
def fitted():
    """A model of three blobs, inputs like its training data, and others on the far side."""
    x, y = blobs(400, spread=0.3)
    model, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=4, held_out=0.2))
    return model, x[:60], -x[:60]


def learned(model, foreign):
    """A copy of a model after two updates."""
    twin = copy.deepcopy(model)
    for part in (foreign[:30] + np.float32(1), foreign[30:]):
        assert twin.update(part).slots_added
    return twin


def distances(row, prototypes, metric):
    """Angle, whitened distance and size of one input of one view, one prototype at a time; and the nearest one."""
    basis, scales = metric.basis.double().numpy(), metric.inverse_scales.double().numpy()
    unit = row / math.sqrt(sum(value * value for value in row))
    angles, whitened = [], []
    for prototype in prototypes:
        gap = unit - prototype / math.sqrt(sum(value * value for value in prototype))
        angles.append(2 * math.asin(min(1.0, math.sqrt(sum(value * value for value in gap)) / 2)))
        whitened.append(math.sqrt(sum(value * value for value in (gap @ basis) * scales)))
    length = math.sqrt(sum(value * value for value in row))
    return [min(angles), min(whitened), abs(math.log(length) - metric.median_log_norm)], int(np.argmin(angles))


def bonferroni(values, metric):
    """The largest rarity, each test with its share of the false alarms."""
    tests = zip(values, metric.quantiles, metric.mean_excess, metric.shares, strict=True)
    return max(math.log(share) + literal.rarity(value, knots, excess) for value, knots, excess, share in tests)


def judged(row, model, which):
    """Score of one input by some of the slots, as it was before those of the fit were looked at apart; and the slot."""
    novelty, slots = model.novelty, np.flatnonzero(which)
    values, nearest = distances(row, model.head.centres.double().numpy()[slots], novelty.metric)
    if novelty.classes is None:
        return bonferroni(values, novelty.metric), slots[nearest]
    evidence = novelty.classes.gaussians.evidence(torch.from_numpy(row)[None])[0, [0, 2]].tolist()
    combine = novelty.classes.combine
    score = literal.weighted_score([*values, *evidence], combine.tails, combine.weights, combine.total)
    later = which & (model.head.generations.numpy() > 0)
    if later.any():
        since, _ = distances(row, model.head.centres.double().numpy()[later], novelty.metric)
        score = min(score, bonferroni(since, novelty.metric))
    return score, slots[nearest]


def changed(name, model, foreign):
    """A model that has later slots, in one of several states."""
    twin = learned(model, foreign)
    if name == "without classes":  # as older versions stored them
        twin.novelty = replace(twin.novelty, classes=None)
    if name == "mixed":
        twin.head.generations[::2] = 1
    if name == "none of the fit":
        delete(twin, np.flatnonzero(twin.head.generations.numpy() == 0).tolist())
    return twin


@pytest.mark.parametrize("state", ["updated", "without classes", "mixed", "none of the fit"])
def test_the_score_of_an_updated_model_is_the_literal_one(fitted, state):
    model, x, foreign = fitted
    twin = changed(state, model, foreign)
    rows = np.concatenate([x[:20], foreign[:20], foreign[30:50]])
    told = twin.examine(rows)
    first = twin.head.generations.numpy() == 0
    for place, row in enumerate(rows.astype(np.float64)):
        score, nearest = judged(row, twin, np.ones(len(first), bool))
        assert told.novelty.scores[place] == pytest.approx(score, abs=1e-9)
        assert told.novelty.nearest[place] == nearest
        if state == "none of the fit":
            assert math.isnan(told.scores_by_fit[place])
        else:
            assert told.scores_by_fit[place] == pytest.approx(judged(row, twin, first)[0], abs=1e-9)


def test_no_update_changes_the_score_by_the_slots_of_the_fit(fitted):
    model, x, foreign = fitted
    rows = np.concatenate([x, foreign])
    before, after = model.examine(rows), learned(model, foreign).examine(rows)
    assert before.scores_by_fit.tobytes() == before.novelty.scores.tobytes()
    assert after.scores_by_fit.tobytes() == before.scores_by_fit.tobytes()
    assert (after.novelty.scores < after.scores_by_fit).any()
    assert (after.novelty.scores <= after.scores_by_fit).all()
    assert model.examine(rows[:0]).scores_by_fit.shape == (0,)


def test_a_calibration_after_an_update_measures_both(fitted):
    model, x, foreign = fitted
    twin = learned(model, foreign)
    rows = np.concatenate([x, foreign])
    found, told = recalibrate(twin, rows), twin.examine(rows)
    assert np.array_equal(found.calibration, np.sort(told.novelty.scores))
    assert np.array_equal(found.familiar, np.sort(told.scores_by_fit))
    assert found.n_slots == model.head.n_slots < twin.head.n_slots
    delete(twin, range(found.n_slots))
    none_left = recalibrate(twin, rows)
    assert (none_left.familiar, none_left.n_slots) == (None, 0)
