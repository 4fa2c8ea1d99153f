"""Our way through the days: the service's own parts in this process, inbox to drift monitor, without HTTP."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection

from protocols.harness.encoders import Features
from protocols.runs.lifetime.contenders import FALSE_ALARMS, Evening, Said, held_out_share
from protocols.runs.lifetime.labelling import Labeller
from protocols.runs.lifetime.stream import JUNK
from protocols.service.answering.contents import Contents, contents
from protocols.service.answering.loaded import Answers
from protocols.service.api.inbox.ingesting import taken
from protocols.service.callers import LOCAL
from protocols.service.inbox import acts, items, reviews
from protocols.service.inbox.labels import Person
from protocols.service.jobs.records import Job
from protocols.service.service import Service
from protocols.service.settings import Settings
from slots.closing.config import ClosingConfig
from slots.errors import StorageError
from slots.shapes import Ids
from slots.storage.generations import undo
from slots.storage.pruning import prune
from slots.training import AutoConfig, TrainConfig, fit

Result = TypeVar("Result")

NAME = "life"
_JUNK = "junk"
_PERSON = Person(None, "labeller", "review")
_DAY_SECONDS = 86_400.0
_AT_ONCE = 64  # inputs of one request, as of a client that sends them as they come


@dataclass(frozen=True)
class Ways:
    """What a user of the service decides.

    Parameters
    ----------
    spread : bool
        Whether an update spreads the labels over all that is unmatched.
    reach : float
        How much of what the first slots match is kept, so that less of a new class is swallowed.
    grouped : bool
        Whether a label is given to a whole group, or to the item in its middle alone.
    keep : int
        Newest generations that stay, beside the first; the others are pruned in the evening.
    """

    spread: bool = True
    reach: float = 0.8
    grouped: bool = True
    keep: int = 7


class Served:
    """A service that lives through the days.

    Parameters
    ----------
    names : tuple of str
        Of the classes.
    seed : int
        Of the fit.
    ways : Ways
        What a user decides.
    """

    def __init__(self, names: tuple[str, ...], seed: int, ways: Ways) -> None:
        self.names, self.seed, self.ways = names, seed, ways
        self.number = {name: place for place, name in enumerate(names)} | {_JUNK: JUNK}
        self.folder = Path(tempfile.mkdtemp(prefix="slots-life-"))
        self.runner = asyncio.Runner()
        self.service: Service | None = None
        self.acts: dict[int, int] = {}
        self.made_on: dict[int, int] = {}  # day to the generation before it
        self.alarm: bool | None = None

    def start(self, rows: Features, labels: Ids) -> None:
        """Fit a model, and start a service on it."""
        closing = ClosingConfig(reach=self.ways.reach)
        base = TrainConfig(held_out=held_out_share(len(rows)), closing=closing, seed=self.seed)
        config = AutoConfig(base, frozenset({"held_out", "closing", "seed"}))
        words = np.array([self.names[it] for it in labels])
        model, _ = fit(rows, words, config=config)
        model.save(self.folder / "model")
        settings = Settings(
            {NAME: self.folder / "model"}, self.folder / "data", device="cpu", false_alarm_rate=FALSE_ALARMS
        )
        self.service = Service.open(settings)
        self._run(self.service.start())

    def stream(self, day: int, rows: Features) -> Said:
        """Send a day's inputs to the inbox, which answers and keeps them; the service's drift monitor watches."""
        found = [
            self._run(self._take(day, start, rows[start : start + _AT_ONCE])) for start in range(0, len(rows), _AT_ONCE)
        ]
        answers = [it["answer"] for receipt in found for it in receipt["items"]]
        matched = np.array([it["answer"] != "unmatched" for it in answers], bool)
        labels = np.array([self._class(it["label"]) for it in answers], np.int64)
        if any(it["novelty"] is None for it in answers):  # too little was held out for a score
            return Said(labels, ~matched, matched)
        self.alarm = self._run(self._service.drift.standing(NAME)).alarm is not None
        return Said(labels, np.array([it["novelty"]["novel"] for it in answers], bool), matched)

    def answer(self, rows: Features) -> Said:
        """Answer inputs that are not kept."""
        service = self._service
        rate = service.settings.false_alarm_rate
        found: Answers = self._run(self.served.answer(rows, false_alarm_rate=rate, again=True))  # no part of the stream
        labels = np.array([self._class(name) for name in found.loaded.names], np.int64)[found.prediction.labels]
        novel = ~found.prediction.matched if found.novelty is None else found.novelty.novel
        return Said(labels, novel, found.prediction.matched)

    def evening(self, day: int, _rows: Features, labeller: Labeller) -> Evening:
        """Let the service group what is unmatched, label the groups, and update."""
        started = time.perf_counter()
        review = self._job("review", {"budget": labeller.left})
        asked = time.perf_counter()
        self.made_on[day] = self.served.current.generation
        self.acts[day] = self._run(self._label(labeller)) if review.state == "done" else 0
        note = "" if review.state == "done" else str(review.error)
        if self.acts[day]:
            update = self._job("update", {"spread": self.ways.spread, "dry_run": False, "budget": None})
            note = note if update.state == "done" else str(update.error)
        if self.served.current.generation != self.made_on[day]:
            prune(self.served.folder, keep=self.ways.keep)
        if self.alarm:
            self._run(self._service.drift.acknowledge(NAME, LOCAL, calibrated=False))
        return Evening(asked - started, time.perf_counter() - asked, self.alarm, note)

    def take_back(self, day: int) -> None:
        """Undo the update of a day, and take its labels back: their items wait again."""
        before = self.made_on[day]
        if self.served.current.generation != before:
            undo(self.served.folder, before)
            self._run(self._settle())
        for _ in range(self.acts[day]):
            self._run(self._service.database.write(lambda it: acts.undo(it, NAME, _PERSON)))

    @property
    def served(self) -> Any:
        """The model as the service holds it."""
        return self._service.models[NAME]

    @property
    def nbytes(self) -> int:
        """Bytes of the generation that answers, saved alone."""
        alone = self.folder / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        self.served.current.model.save(alone)
        return _size(alone)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all generations and of the inbox."""
        return _size(self.folder / "model") + _size(self.folder / "data")

    def close(self) -> None:
        """Stop the service and remove its folders."""
        if self.service is not None:
            self._run(self.service.stop())
        self.runner.close()
        gc.unfreeze()  # the service froze what it found here: this process goes on to other things
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _service(self) -> Service:
        assert self.service is not None
        return self.service

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def _class(self, name: str) -> int:
        return self.number.get(name, JUNK)

    async def _take(self, day: int, start: int, rows: Features) -> dict[str, Any]:
        """One request of a client."""
        service = self._service
        several: Contents = contents(self.served.current.model, rows, service.settings.limits)  # type: ignore[arg-type]
        ids = [f"{day}/{start + place}" for place in range(len(rows))]
        return await taken(service, self.served, LOCAL, several, ids=ids, policy=service.settings.keeping.policy)

    async def _label(self, labeller: Labeller) -> int:
        """Work through the groups of the newest query list, those that cover most first; how many were labelled."""
        database = self._service.database
        done = 0
        newest = await database.read(lambda it: reviews.newest(it, NAME))
        most = labeller.left
        for group in await database.read(lambda it: reviews.groups(it, newest.number, state="open", limit=most)):
            known = await database.read(partial(_item, group.middle))
            day, place = map(int, known.id.split("/"))
            said = labeller.ask(day, place)
            word = _JUNK if said == JUNK else self.names[said]
            await database.write(partial(self._give, group.number, group.middle, word))
            done += 1
        return done

    def _give(self, group: int, middle: int, word: str, connection: Connection) -> None:
        if self.ways.grouped:
            acts.label_group(connection, group, word, _PERSON)
        else:
            acts.label_items(connection, NAME, {middle: word}, _PERSON, {middle: True})

    def _job(self, kind: Any, arguments: dict[str, Any]) -> Job:
        return self._run(self._done(kind, arguments))

    async def _done(self, kind: Any, arguments: dict[str, Any]) -> Job:
        """A job, when it is over."""
        jobs = self._service.jobs
        job = await jobs.submit(self.served, kind, arguments, caller=LOCAL)
        async for _ in jobs.feed.follow(job.number, 0, self._service.ending):
            pass
        found = await jobs.find(job.number)
        if found is None:
            raise StorageError(f"Job {job.number} is gone from the database. Run it again.")
        return found

    async def _settle(self) -> None:
        await self.served.refresh()
        await self._service.jobs.again.settled(NAME)


def _item(number: int, connection: Connection) -> items.Item:
    return items.numbered(connection, NAME, [number])[number]


def _size(folder: Path) -> int:
    return sum(it.stat().st_size for it in folder.rglob("*") if it.is_file())
