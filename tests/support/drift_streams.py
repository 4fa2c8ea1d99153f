"""Streams for the drift monitor of a service: familiar ones, others, and what a monitor says of them offline."""

import math
import time

import numpy as np
from support.service import rows

from protocols.recipes.building import load_model
from protocols.service.drift import Monitor

AT = "/api/v1/models/small"


def familiar(n, seed):
    return rows(n, seed)[0]


def shifted(n, seed):
    """The same blobs, four times as wide."""
    return rows(n, seed, spread=1.6)[0]


def ask(client, x, path="predict"):
    for part in np.array_split(x, math.ceil(len(x) / 400)):
        client.post(f"{AT}/{path}", json={"inputs": part.tolist()}).raise_for_status()


def told(loaded, x):
    return loaded.answer(x, false_alarm_rate=0.05)


def offline(folder, x):
    """A monitor that saw all of it at once."""
    model = load_model(folder)
    found = model.examine(x)
    monitor = Monitor(model.novelty.familiar)
    monitor.observe(found.scores_by_fit, found.prediction.answers, found.prediction.labels, 0.0)
    return monitor


def learn(folder, sign=1):
    """The next generation of a model folder knows the fourth centre, or what lies opposite to all."""
    model = load_model(folder)
    assert model.update(sign * rows(200, 18, classes=4)[0]).slots_added
    model.save(folder, keep_history=True)


def answering(client, number):
    """Wait until a generation answers."""
    until = time.monotonic() + 60
    while (found := client.get(AT).json()["generation"]) != number:
        assert time.monotonic() < until, found
