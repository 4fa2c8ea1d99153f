"""A running service in a thread of the test's own process, on a port of its own."""

import asyncio
import ssl
import threading
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import httpx
import numpy as np
from starlette.datastructures import State
from support.warm_children import WarmChildren, end_idle

from protocols.service import application, description, service
from protocols.service.answering import served_model
from protocols.service.jobs import runner
from protocols.service.jobs.children import Children
from protocols.service.running import listen, serve
from protocols.service.settings import Settings
from slots.training import TrainConfig, fit

TLS = ssl.create_default_context()
"""Of all clients: to read the system's certificates for each takes longer than a request."""
CENTRES = np.eye(6, dtype=np.float32)[:4] * 3


def rows(n, seed, classes=3, spread=0.4):
    """Feature rows around `CENTRES` and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (CENTRES[labels] + rng.normal(0, spread, (n, 6))).astype(np.float32), labels


def small_model(folder):
    """Three blobs in six dimensions, fitted and saved; the fourth centre is new to it."""
    x, y = rows(900, 0)
    config = TrainConfig(epochs=2, slots_per_class=2, held_out=0.2)
    model, _ = fit(x, y, config=config, class_names=("red", "green", "blue"))
    model.save(folder)
    return model


@contextmanager
def lightened(children=WarmChildren):
    """Services here leave the garbage collector alone, and their jobs' process to the next one."""
    with (
        patch.object(runner, "Children", children),
        patch.object(service, "freeze", _leave_alone),
        patch.object(served_model, "freeze", _leave_alone),
    ):
        yield


@contextmanager
def running(folder, data, *, warm=True, **changes):
    """A service on a model folder; gives a client of it. ``changes`` are other settings.

    Its jobs are done by the process that did those of the service before, unless it is not to be ``warm``. It leaves
    the garbage collector alone: a service has its process to itself, here a pass over all that tests have imported
    would take a second of each start and of each update.
    """
    if not warm:
        end_idle()
    mine = []  # services need not end in the order in which they began

    def described(routers):
        mine.append(_described(routers))
        return mine[-1]

    with lightened(WarmChildren if warm else Children), patch.object(application, "described", described):
        try:
            yield from _running(folder, data, changes)
        finally:
            _ended.extend(mine)


def _leave_alone(*, first=False):
    del first


_ended = []


def _described(routers):
    """The routes of a service that has ended, or new ones: the first request that comes to them takes a second."""
    if not _ended:
        return description.described(routers)
    found = _ended.pop()
    found.state, found.middleware_stack = State(), None
    found._document, found._text, found._writing = None, b"", asyncio.Lock()
    found.user_middleware.clear()
    return found


def _running(folder, data, changes):
    settings = replace(Settings({"small": folder}, data, port=0, poll_seconds=0.05), **changes)
    started, address = threading.Event(), []
    held = {}

    async def body():
        held["loop"], held["stopping"] = asyncio.get_running_loop(), asyncio.Event()
        listening = listen(settings)
        try:
            await serve(
                settings, listening, started=lambda at: (address.append(at), started.set()), stopping=held["stopping"]
            )
        finally:
            started.set()

    failures = []

    def run():
        try:
            asyncio.run(body())
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(60)
    if failures:
        raise failures[0]
    with httpx.Client(base_url=address[0], timeout=30, verify=TLS) as client:
        try:
            yield client
        finally:
            held["loop"].call_soon_threadsafe(held["stopping"].set)
            thread.join(60)
            assert not thread.is_alive()
    if failures:
        raise failures[0]
