"""Eras of a drift monitor: they go on through updates and undo, and end where the fit's slots change."""

from dataclasses import replace

import numpy as np
import pytest
from support.drift_streams import AT, answering, ask, familiar, learn, offline, shifted, told
from support.pages import parse
from support.service import rows, running

from protocols.recipes.building import load_model
from protocols.service.answering.loaded import Loaded
from protocols.service.drift.comparing import calibration_of, identity, watched
from protocols.service.drift.watch import Watch
from slots.closing import ClosingConfig
from slots.model import delete, merge
from slots.novelty import recalibrate
from slots.storage.generations import undo
from slots.training import TrainConfig, fit


def shown(drift):
    return drift["era"], drift["generation"], drift["items"], drift["calibration"]


def test_an_era_goes_on_through_an_update_and_its_undo(own, tmp_path):
    """As if nobody had learned anything meanwhile: what is compared is judged by the slots of the fit."""
    new = rows(150, 19, classes=4)[0]  # of which a part is learned meanwhile
    x = np.concatenate([familiar(150, 17), shifted(30, 20), new, shifted(30, 21)])
    expected = offline(own, x)
    with running(own, tmp_path / "data") as client:
        ask(client, x[:180])
        learn(own)
        answering(client, 1)
        ask(client, x[180:250])
        learned = client.get(f"{AT}/drift").json()
        undo(own)
        answering(client, 2)
        ask(client, x[250:])
        found = client.get(f"{AT}/drift").json()
        page = client.get("/models/small/drift").text
    assert (shown(learned), shown(found)) == ((0, 1, 250, 90), (0, 2, 360, 90))
    assert found["alarm"]["item"] == expected.alarm.item
    assert found["log10"] == pytest.approx(expected.log10, abs=1e-6)
    assert np.sum([it["histogram"] for it in found["steps"]], axis=0).tolist() == expected.minute.histogram
    assert found["steps"][-1]["generation"] == 2
    assert "the slots of the fit alone" in parse(page).text


def test_an_era_goes_on_through_a_restart_with_another_generation(own, tmp_path):
    x = familiar(100, 22)
    for number, part in enumerate((x[:60], x[60:])):
        with running(own, tmp_path / "data") as client:
            ask(client, part)
            found = client.get(f"{AT}/drift").json()
        if not number:
            learn(own)
    assert shown(found) == (0, 1, 100, 90)
    assert found["log10"] == pytest.approx(offline(own, x).log10, abs=1e-6)


def test_a_class_that_streams_in_raises_one_alarm_however_often_it_is_learned(own, tmp_path):
    """It is foreign to the fit; once somebody has looked at it, it belongs to the stream."""
    new, later = rows(400, 23, classes=4)[0], rows(1200, 24, classes=4)[0]
    with running(own, tmp_path / "data") as client:
        ask(client, new)
        raised = client.get(f"{AT}/drift").json()["alarm"]
        client.post(f"{AT}/drift/acknowledge").raise_for_status()
        for number in (1, 2):
            ask(client, later[400 * number - 400 : 400 * number])
            learn(own, sign=3 - 2 * number)
            answering(client, number)
        ask(client, later[800:])
        found = client.get(f"{AT}/drift").json()
    assert raised is not None
    assert (found["era"], found["generation"], found["items"], found["compared_with"]) == (1, 2, 1200, "stream")
    assert found["alarm"] is None


def test_a_deleted_slot_of_the_fit_begins_an_era_and_another_one_does_not(own, tmp_path):
    learn(own)
    n_fitted = int((load_model(own).head.generations == 0).sum())
    found = []
    with running(own, tmp_path / "data") as client:
        ask(client, familiar(20, 25))
        for number, slot in ((2, n_fitted), (3, 0)):  # one that was learned; one of the fit
            model = load_model(own)
            delete(model, [slot])
            model.save(own, keep_history=True)
            answering(client, number)
            found.append(shown(client.get(f"{AT}/drift").json()))
        undo(own)
        answering(client, 4)
        found.append(shown(client.get(f"{AT}/drift").json()))
    assert found == [(0, 2, 20, 90), (1, 3, 0, 0), (2, 4, 0, 90)]


def test_what_a_stream_is_compared_with_was_scored_by_the_same_slots():
    x, y = rows(300, 20, spread=1.2)
    held = {"epochs": 2, "slots_per_class": 2, "held_out": 0.3}
    model, _ = fit(x, y, config=TrainConfig(**held, closing=ClosingConfig(mode="full")))
    assert len(calibration_of(Loaded(model, 0, ()))) == 0  # held-out examples became slots themselves
    x, y = rows(1500, 29)
    model, _ = fit(x, y, config=TrainConfig(**held))
    scores = calibration_of(Loaded(model, 0, ()))
    assert len(scores) == 225
    assert (scores <= model.novelty.calibration).all()  # both ascend: slots were added, which lowers scores
    assert (scores < model.novelty.calibration).any()
    assert set(scores) <= set(model.examine(x).scores_by_fit)
    first = model.head.n_slots
    model.update(rows(200, 30, classes=4)[0])
    later = range(first, model.head.n_slots)
    assert len(later) > 1
    for gone, n in ((later[-1:], 225), ([0], 0), (range(first - 1), 0)):  # a later slot; one of the fit; all of these
        delete(model, gone)
        assert len(calibration_of(Loaded(model, 1, ()))) == n
    assert not watched(Loaded(model, 1, ()))
    assert np.isnan(model.examine(x[:3]).scores_by_fit).all()
    model.novelty = recalibrate(model, x[:40])
    assert len(calibration_of(Loaded(model, 1, ()))) == 0


def of(model):
    return identity(Loaded(model, 0, ()))


def test_generations_that_score_alike_have_one_identity(own):
    model = load_model(own)
    x, centres = rows(60, 31)[0], model.head.centres.clone()
    first = of(model)
    learn(own)
    learned = load_model(own)
    assert of(learned) == first == of(load_model(own))
    merge(learned, ["red"], "green")
    learned.novelty = replace(learned.novelty, calibration=learned.novelty.calibration[1:])
    assert of(learned) == first
    others = [recalibrate(model, x), replace(model.novelty, familiar=None), replace(model.novelty, n_slots=1)]
    metric = model.novelty.metric
    others += [replace(model.novelty, metric=replace(metric, **{name: getattr(metric, name) * 2})) for name in (
        "basis", "inverse_scales", "median_log_norm",
    )]  # fmt: skip
    combine = model.novelty.classes.combine
    others.append(
        replace(
            model.novelty,
            classes=replace(model.novelty.classes, combine=replace(combine, weights=combine.weights * 2)),
        )
    )
    found = []
    for model.novelty in (*others, None, load_model(own).novelty):
        found.append(of(model))
    model.head.centres[0] = -centres[0]
    found.append(of(model))
    assert len(set(found)) == len(found) == len(others) + 3
    assert found[-2] == first


@pytest.mark.parametrize("alike", [True, False], ids=["scores alike", "scores otherwise"])
def test_batches_around_a_swap(own, alike):
    """Whatever is told first; minutes name the generation that answered last in them."""
    one = Loaded.load(own, "cpu")
    model = load_model(own)
    if alike:
        model.update(rows(200, 25, classes=4)[0])
    else:
        delete(model, [0])
    two = Loaded(model, 1, one.names)
    watch = Watch(one)
    watch.tell(told(one, familiar(10, 26)), 60.0)
    watch.tell(told(one, familiar(2, 26)), 121.0)
    watch.tell(told(two, familiar(5, 27)), 122.0)  # swapped, and not told yet
    watch.digest()
    watch.swapped(two)
    watch.tell(told(one, familiar(7, 28)), 123.0)  # late
    watch.tell(told(two, familiar(3, 29)), 124.0)
    watch.tell(told(one, familiar(4, 28)), 181.0)  # later still
    found = watch.standing()
    seen = [(it.era, it.start, it.n, it.generation) for it in found.minutes]
    if alike:
        assert (found.era, found.generation, found.items) == (0, 1, 31)
        assert seen == [(0, 60, 10, 0), (0, 120, 17, 1), (0, 180, 4, 0)]
    else:
        assert (found.era, found.generation, found.items) == (1, 1, 8)
        assert seen == [(0, 60, 10, 0), (0, 120, 2, 0), (1, 120, 8, 1)]


def test_generations_that_come_quickly_and_one_that_comes_back(own):
    """A late batch of any generation before, not of the last alone, belongs to its own era."""
    several = []
    for gone in ([], [0], [0, 1]):
        model = load_model(own)
        if gone:
            delete(model, gone)
        several.append(Loaded(model, len(gone), ()))
    one, two, three = several
    watch = Watch(one)
    batch = told(one, familiar(3, 26))
    watch.swapped(two)
    watch.swapped(three)
    watch.tell(batch)
    assert (watch.standing().era, watch.standing().items) == (2, 0)
    watch.swapped(one)
    watch.tell(batch)
    found = watch.standing()
    assert (found.era, found.generation, found.items, found.compared) == (3, 0, 3, 90)
