"""The drift monitors of a running service: fed by its answers, stored now and then, told to the log of events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial

from sqlalchemy import Connection

from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.answering.served_model import ServedModel
from protocols.service.callers import Caller
from protocols.service.drift import rows
from protocols.service.drift.watch import Standing, Unsaved, Watch
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import record
from slots.errors import StorageError

_LOOK_SECONDS = 1.0
_SAVE_SECONDS = 5.0  # what a crash takes from the monitors at most; the state is about 100 kB
_SWEEP_SECONDS = 3600.0


class Watching:
    """One monitor a model.

    A crash loses the inputs of the last seconds, with their minutes: state and minutes are stored in one transaction.
    What is lost says nothing of the inputs, so the promise stands.

    Parameters
    ----------
    database : Database
        Where they are kept.
    models : mapping of str to ServedModel
        By name.
    """

    def __init__(self, database: Database, models: Mapping[str, ServedModel]) -> None:
        self._database = database
        self._watches = {name: self._found(name, served.current) for name, served in models.items()}
        self._saving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def add(self, served: ServedModel) -> None:
        """Watch a further model."""
        self._watches[served.name] = self._found(served.name, served.current)

    def start(self) -> None:
        """Look at what came in from time to time, in the running event loop."""
        self._task = asyncio.create_task(self._look_all())

    async def stop(self) -> None:
        """Look at the rest and store it; after the models have stopped."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._look()
        await self._save_all()

    def answered(self, served: ServedModel, answers: Answers, _seconds: float) -> None:
        """As `Service.on_answers` tells it, in the event loop or a thread."""
        self._watches[served.name].tell(answers)

    def swapped(self, served: ServedModel, _before: Loaded, after: Loaded) -> None:
        """As `Service.on_swap` tells it."""
        self._watches[served.name].swapped(after)

    async def standing(self, model: str) -> Standing:
        """What the monitor of a model says of all that was answered until now."""
        return await asyncio.to_thread(self._watches[model].standing)

    async def acknowledge(self, model: str, caller: Caller, *, calibrated: bool) -> Standing:
        """Begin a new era after an alarm that the caller has looked at, see `Watch.acknowledge`."""
        await asyncio.to_thread(partial(self._watches[model].acknowledge, caller, calibrated=calibrated))
        await self._save(model)
        return await self.standing(model)

    async def _look_all(self) -> None:
        saved = swept = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            urgent = await self._look()
            now = time.monotonic()
            if urgent or now > saved + _SAVE_SECONDS:
                saved = now
                await self._save_all()
            if now > swept + _SWEEP_SECONDS:
                swept = now
                with contextlib.suppress(StorageError):
                    await self._database.write(rows.forget_old)

    async def _look(self) -> bool:
        """Look at what came in; whether something urgent waits to be stored."""
        for watch in self._watches.values():
            await asyncio.to_thread(watch.digest)
        return any(watch.urgent for watch in self._watches.values())

    async def _save_all(self) -> None:
        for name, watch in list(self._watches.items()):
            if watch.changed:
                with contextlib.suppress(StorageError):  # it is tried again
                    await self._save(name)

    async def _save(self, name: str) -> None:
        watch = self._watches[name]
        async with self._saving:
            what = watch.unsaved()
            try:
                await self._database.write(partial(_store, name, what))
            except StorageError:
                watch.not_saved()
                raise
            watch.saved(what)

    def _found(self, name: str, loaded: Loaded) -> Watch:
        kept = self._database.read_now(lambda it: rows.find(it, name))
        return Watch(loaded, kept, last_era=self._database.read_now(lambda it: rows.last_era(it, name)))


def _store(name: str, what: Unsaved, connection: Connection) -> None:
    rows.keep(connection, name, what.head, what.state, what.minutes)
    for it in what.happenings:
        record(connection, it.caller, it.action, model=name, after=it.generation, detail=it.detail)
