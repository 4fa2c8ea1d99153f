"""Micro-batches in the event loop and in a thread: the same answers, and whoever waits is answered."""

import asyncio
import itertools
import threading
import time

import numpy as np
import pytest
from support.service import rows

from protocols.recipes.building import load_model
from protocols.service.answering import batching
from protocols.service.answering.batching import Expired, Overloaded, Pace
from protocols.service.answering.loaded import Loaded
from protocols.service.answering.served_model import ServedModel
from protocols.service.settings import Limits

X = rows(200, 2, classes=4)[0]


@pytest.fixture(params=["event loop", "thread"])
def where(request, monkeypatch):
    """Both ways: no batch is quick enough, or every one is."""
    monkeypatch.setattr(batching, "_QUICK_SECONDS", 0.0 if request.param == "thread" else 60.0)
    return request.param


class Told:
    """A served model, and what it told of its batches."""

    def __init__(self, folder, **limits):
        self.threads, self.batches, self.again = [], [], []
        self.model = ServedModel("small", folder, "cpu", Limits(**limits), answered=self._answered)

    def _answered(self, _served, answers, _seconds):
        self.threads.append(threading.current_thread().name)
        self.batches.append(len(answers.prediction))
        self.again.append(answers.again)

    def run(self, body):
        async def whole():
            self.model.start()
            try:
                return await body(self.model)
            finally:
                await self.model.stop()

        return asyncio.run(whole())


def ask(model, start, stop=None, **options):
    x = X[start : start + 1 if stop is None else stop]
    return asyncio.create_task(model.answer(x, **{"false_alarm_rate": 0.05, **options}))


def test_answers_are_those_that_a_row_gets_alone(small, where):
    """Different rates and rows of the stream and others mixed: only those that are alike share a batch."""
    told = Told(small)
    rates = [0.05, 0.05, 0.2]

    async def body(model):
        tasks = [ask(model, row, false_alarm_rate=rates[row % 3], again=row % 7 == 0) for row in range(len(X))]
        return await asyncio.gather(*tasks)

    found = told.run(body)
    model = load_model(small)
    for row, answers in enumerate(found):
        alone = model.examine(X[row : row + 1], false_alarm_rate=rates[row % 3])
        assert answers.prediction.labels == alone.prediction.labels
        assert answers.prediction.margins == alone.prediction.margins
        assert answers.novelty.p_values == alone.novelty.p_values
        assert answers.novelty.novel == alone.novelty.novel
        assert answers.again == (row % 7 == 0)
    assert sum(told.batches) == len(X) == told.model.counted.rows
    assert told.model.recent.tallies(seconds=900)[0].total == sum(row % 7 != 0 for row in range(len(X)))
    assert {it.startswith("answers-") for it in told.threads} == {where == "thread"}
    assert told.model.queued == 0


def test_all_that_wait_are_one_batch_up_to_its_size(small, where):
    told = Told(small, batch_rows=16)

    async def body(model):
        await asyncio.gather(*(ask(model, row) for row in range(40)))

    told.run(body)
    assert told.batches == [16, 16, 8]


@pytest.mark.parametrize("batch_rows", [8, 64])
def test_a_request_of_many_rows_is_no_matter_of_the_event_loop(small, where, batch_rows):
    """Nor is one that is larger than a batch."""
    told = Told(small, batch_rows=batch_rows)

    async def body(model):
        for stop in (100, 17, 16, 1):
            await ask(model, 0, stop)

    told.run(body)
    assert told.batches == [100, 17, 16, 1]
    away = [it == "answers-small" for it in told.threads]
    assert away == [True, True, where == "thread" or batch_rows == 8, where == "thread"]


def test_whoever_waits_when_it_stops_is_answered(small, where):
    told = Told(small, batch_rows=4)

    async def body(model):
        tasks = [ask(model, row) for row in range(50)]
        await asyncio.sleep(0)
        assert model.queued == 50
        await model.stop()
        assert all(it.done() for it in tasks)
        assert [it.result().prediction.labels for it in tasks] == load_model(small).predict(X[:50]).labels.tolist()
        assert not model.alive

    told.run(body)


def test_what_goes_wrong_is_told_and_others_go_on(small, where, monkeypatch):
    told, answer = Told(small), Loaded.answer

    def sometimes(self, x, **options):
        if (x == 7).any():
            raise RuntimeError("no answer")
        return answer(self, x, **options)

    monkeypatch.setattr(Loaded, "answer", sometimes)

    async def body(model):
        bad = asyncio.create_task(model.answer(np.full((1, 6), 7, np.float32), false_alarm_rate=0.1))
        late = ask(model, 0, deadline=time.monotonic() - 1)
        gone = ask(model, 1)
        good = ask(model, 2)
        await asyncio.sleep(0)
        gone.cancel()
        return await asyncio.gather(bad, late, gone, good, return_exceptions=True)

    bad, late, gone, good = told.run(body)
    assert isinstance(bad, RuntimeError)
    assert isinstance(late, Expired)
    assert isinstance(gone, asyncio.CancelledError)
    assert len(good.prediction) == 1
    assert told.model.queued == 0


def test_more_than_may_wait_are_told_to_come_again(small, where):
    told = Told(small, queued_rows=20)

    async def body(model):
        return await asyncio.gather(*(ask(model, row) for row in range(30)), return_exceptions=True)

    found = told.run(body)
    assert [isinstance(it, Overloaded) for it in found] == [False] * 20 + [True] * 10


def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_model_that_becomes_slow_moves_to_the_thread_and_comes_back(small, monkeypatch):
    told, answer, slow = Told(small), Loaded.answer, [0.0]

    def slower(self, x, **options):
        burn(slow[0])
        return answer(self, x, **options)

    monkeypatch.setattr(Loaded, "answer", slower)
    monkeypatch.setattr(batching, "_QUICK_SECONDS", 0.05)
    told.model._pace = Pace(0.0)

    async def body(model):
        for slow[0] in (0.0, 0.2, 0.0):
            for row in range(20):
                await ask(model, row)

    told.run(body)
    away = [it == "answers-small" for it in told.threads]
    assert away[:20] == [False] * 20
    assert away[20] is False
    assert away[25:40] == [True] * 15
    assert away[40] is True
    assert away[-1] is False
    assert sum(one != other for one, other in itertools.pairwise(away)) == 2


def test_a_model_that_is_slow_from_the_start_never_holds_the_event_loop(small, monkeypatch):
    answer = Loaded.answer

    def slower(self, x, **options):
        burn(0.03)
        return answer(self, x, **options)

    monkeypatch.setattr(Loaded, "answer", slower)
    told = Told(small)
    assert not told.model.quick

    async def body(model):
        await asyncio.gather(*(ask(model, row) for row in range(3)))

    told.run(body)
    assert set(told.threads) == {"answers-small"}


def test_a_model_beside_the_processor_is_never_answered_in_the_event_loop():
    pace = Pace(float("inf"))
    for _ in range(100):
        pace.note(0.0)
    assert not pace.quick
