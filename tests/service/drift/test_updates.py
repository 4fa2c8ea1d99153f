"""The promise over updates: a model that learns every night is watched as one that never learns."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.drift_streams import told
from support.service import rows

from protocols.service.answering.loaded import Loaded
from protocols.service.drift.watch import Watch
from slots.training import TrainConfig, fit

KEPT = 100  # examples that a fit kept aside
NIGHT = 150  # inputs between two updates
SHIFT = 0.475  # spread of the blobs at which the score is half a deviation higher


@pytest.fixture(scope="module")
def generations():
    """The model of a fit, and after each of three updates: a new class, and inputs on the edge of what is familiar."""
    x, y = rows(900, 0)
    model, _ = fit(x, y, config=TrainConfig(epochs=2, slots_per_class=2, held_out=0.2))
    made = [model]
    for new in (rows(200, 18, classes=4)[0], rows(300, 19, spread=0.8)[0], rows(300, 20, spread=1.2)[0]):
        made.append(copy.deepcopy(made[-1]))
        assert made[-1].update(new).slots_added
    return tuple(Loaded(model, number, ()) for number, model in enumerate(made))


def calibrated(generations, scores):
    """The same generations of a model whose fit kept other examples aside, of these scores."""
    made = []
    for it in generations:
        model = copy.copy(it.model)
        model.novelty = replace(model.novelty, familiar=np.sort(scores))
        made.append(replace(it, model=model))
    return made


def alarms(generations, nights):
    """Input at which each of many streams raises its alarm, or infinity.

    ``nights`` are answers to the examples that the fit kept aside, `KEPT` a stream, and then each generation's answers,
    `NIGHT` a stream.
    """
    first, *others = nights
    n_streams = len(others[0].prediction.labels) // NIGHT
    found = []
    for stream in range(n_streams):
        kept = calibrated(generations, first.rows(stream * KEPT, stream * KEPT + KEPT).scores_by_fit)
        watch = Watch(kept[0])
        for loaded, answers in zip(kept, others, strict=True):
            watch.swapped(loaded)
            part = replace(answers.rows(stream * NIGHT, stream * NIGHT + NIGHT), loaded=loaded)
            watch.tell(part, 0.0)
        standing = watch.standing()
        assert (standing.era, standing.items) == (0, NIGHT * len(others))
        found.append(np.inf if standing.alarm is None else standing.alarm.item)
    return np.array(found)


def answered(generations, n_streams, spread=(0.4, 0.4, 0.4, 0.4)):
    first = told(generations[0], rows(KEPT * n_streams, 40)[0])
    nights = zip(generations, spread, strict=True)
    return [first, *(told(it, rows(NIGHT * n_streams, 41 + it.generation, spread=wide)[0]) for it, wide in nights)]


def test_familiar_streams_seldom_raise_an_alarm_over_updates(generations):
    """At most 1 % ever; 200 streams of four nights show no more with probability 0.999."""
    found = alarms(generations, answered(generations, 200))
    assert np.isfinite(found).sum() <= stats.binom.ppf(0.999, 200, 0.01)


def test_a_shift_that_begins_just_before_an_update_is_found(generations):
    """Half a deviation, from 20 inputs before the first update on, over two more."""
    nights = answered(generations, 100, (0.4, SHIFT, SHIFT, SHIFT))
    usual, wide = nights[1].scores_by_fit, nights[2].scores_by_fit
    assert (wide.mean() - usual.mean()) / usual.std() == pytest.approx(0.5, abs=0.05)
    earlier = told(generations[0], rows(NIGHT * 100, 50, spread=SHIFT)[0])
    late = np.arange(NIGHT * 100) % NIGHT >= NIGHT - 20
    mixed = np.where(late, earlier.scores_by_fit, usual)
    nights[1] = replace(nights[1], scores_by_fit=mixed)
    delays = alarms(generations, nights) - (NIGHT - 20) + 1
    assert (delays < 1).sum() <= stats.binom.ppf(0.999, 100, 0.01)
    assert np.median(delays[delays >= 1]) <= 200
