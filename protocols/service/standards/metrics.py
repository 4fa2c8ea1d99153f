"""Figures of a running service for Prometheus. No label holds a class, a person, or a path that a client made up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from sqlalchemy import Connection, func, select

from protocols.service.answering.loaded import Answers
from protocols.service.answering.served_model import ServedModel
from protocols.service.inbox.tables import item, job, label
from protocols.service.service import Service
from slots.head.prediction import Answer

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096)


@dataclass(frozen=True)
class Counts:
    """What the database says.

    Parameters
    ----------
    items, labels : dict of str to int
        Rows by model that came since the last look (count).
    last_item, last_label : int
        Their last numbers.
    open : dict of str to int
        Unmatched items by model that wait for a label (count).
    jobs : dict of (str, str, str) to int
        Jobs by model, kind and state (count).
    """

    items: dict[str, int]
    labels: dict[str, int]
    last_item: int
    last_label: int
    open: dict[str, int]
    jobs: dict[tuple[str, str, str], int]


class Metrics:
    """Counts what a service does from now on, in a registry of its own.

    Parameters
    ----------
    service : Service
        Told to report here.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looking = asyncio.Lock()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("slots_build", "Version of the package.", registry=registry).info(
            {"version": metadata.version("neural-slots")}
        )
        self._requests = Histogram(
            "slots_request_seconds", "From a request to the begin of its answer.", ("method", "route", "status"),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._answers = Counter("slots_answers", "Inputs answered.", ("model", "answer"), registry=registry)
        self._rows = Histogram(
            "slots_batch_rows", "Inputs answered together.", ("model",), registry=registry, buckets=_ROWS
        )
        self._model = Histogram(
            "slots_model_seconds", "Of a batch in the model.", ("model",), registry=registry, buckets=_SECONDS
        )
        self._commits = Histogram(
            "slots_commit_seconds", "Of a transaction of the writer, with its commit.", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._items = Counter("slots_items", "Items stored.", ("model",), registry=registry)
        self._labels = Counter("slots_labels", "Labels given or taken back.", ("model",), registry=registry)
        self._jobs = self._gauge("slots_jobs", "Jobs by what became of them.", "model", "kind", "state")
        self._generation = self._gauge("slots_generation", "The generation that answers.", "model")
        self._slots = self._gauge("slots_slots", "Slots of the generation that answers.", "model")
        self._queued = self._gauge("slots_queued_rows", "Inputs that wait for an answer.", "model")
        self._replica = self._gauge(
            "slots_replica_problem", "1 if the place to follow, or to publish to, cannot be reached.", "model"
        )
        self._problem = self._gauge("slots_unreadable_generation", "1 if the newest one could not be loaded.", "model")
        self._open = self._gauge("slots_open_unmatched_items", "Unmatched items that wait for a label.", "model")
        self._drift = self._gauge("slots_drift_log10", "Decimal logarithm of the capital that bets on drift.", "model")
        self._alarm = self._gauge("slots_drift_alarm", "1 from an alarm until it is acknowledged.", "model")
        self._alarms = Counter("slots_drift_alarms", "Alarms of drift.", ("model",), registry=registry)
        self._told_alarms = dict.fromkeys(service.models, 0)
        self._kept = self._gauge("slots_kept_items", "Items in the inbox.")
        self._bytes = self._gauge("slots_kept_bytes", "Their contents.")
        self._free = self._gauge("slots_disk_free_bytes", "Free on the disk of the data folder.")
        self._ready = self._gauge("slots_ready", "1 if requests are welcome.")
        self._last_item, self._last_label = service.database.read_now(_last)
        service.on_answers.append(self._answered)
        service.database.committed = self._commits.observe
        for name in service.models:  # at zero from the start: a counter that appears late hides its first rise
            self._items.labels(name), self._labels.labels(name), self._alarms.labels(name)
            for answer in Answer:
                self._answers.labels(name, answer.name.lower())

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request, as `protocols.service.web.timing.Timed` tells it."""
        self._requests.labels(method, route, f"{status // 100}xx").observe(seconds)

    async def look(self) -> None:
        """Bring up to date what is read when it is asked for."""
        service = self._service
        async with self._looking:
            found = await service.database.read(lambda it: counts(it, self._last_item, self._last_label))
            self._last_item = max(self._last_item, found.last_item)
            self._last_label = max(self._last_label, found.last_label)
        for name, served in service.models.items():
            self._items.labels(name).inc(found.items.get(name, 0))
            self._labels.labels(name).inc(found.labels.get(name, 0))
            self._open.labels(name).set(found.open.get(name, 0))
            self._generation.labels(name).set(served.current.generation)
            self._slots.labels(name).set(served.current.model.head.n_slots)
            self._queued.labels(name).set(served.queued)
            self._problem.labels(name).set(bool(served.problem))
            await self._look_at_drift(name)
            self._replica.labels(name).set(bool(service.replica_problem(name)))
        self._jobs.clear()
        for (name, kind, state), n in found.jobs.items():
            if name in service.models:
                self._jobs.labels(name, kind, state).set(n)
        self._kept.set(service.inbox.kept.items)
        self._bytes.set(service.inbox.kept.size)
        self._free.set(await asyncio.to_thread(service.inbox.free))
        self._ready.set(service.ready)

    async def _look_at_drift(self, name: str) -> None:
        standing = await self._service.drift.standing(name)
        self._drift.labels(name).set(standing.log10)
        self._alarm.labels(name).set(standing.alarm is not None)
        self._alarms.labels(name).inc(standing.alarms - self._told_alarms.get(name, 0))
        self._told_alarms[name] = standing.alarms

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(name, says, labels, registry=self.registry)

    def _answered(self, served: ServedModel, answers: Answers, seconds: float) -> None:
        kinds = np.bincount(answers.prediction.answers, minlength=len(Answer))
        for answer in Answer:
            self._answers.labels(served.name, answer.name.lower()).inc(int(kinds[answer]))
        self._rows.labels(served.name).observe(len(answers.prediction))
        self._model.labels(served.name).observe(seconds)


def counts(connection: Connection, last_item: int, last_label: int) -> Counts:
    """What the database says, and what came since the last look.

    Parameters
    ----------
    connection : Connection
        Of the database.
    last_item, last_label : int
        Numbers of the last rows that were counted.

    Returns
    -------
    Counts
    """
    n = func.count()
    items = select(item.c.model, n).where(item.c.number > last_item).group_by(item.c.model)
    labels = select(item.c.model, n).join(label, label.c.item == item.c.number).where(label.c.number > last_label)
    unmatched = select(item.c.model, n).where(item.c.state == "open", item.c.answer == "unmatched")
    jobs = select(job.c.model, job.c.kind, job.c.state, n).group_by(job.c.model, job.c.kind, job.c.state)
    newest_item, newest_label = _last(connection)
    return Counts(
        _by_model(connection, items),
        _by_model(connection, labels.group_by(item.c.model)),
        newest_item,
        newest_label,
        _by_model(connection, unmatched.group_by(item.c.model)),
        {(name, kind, state): count for name, kind, state, count in connection.execute(jobs)},
    )


def _by_model(connection: Connection, query: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _last(connection: Connection) -> tuple[int, int]:
    items, labels = (select(func.coalesce(func.max(it.c.number), 0)) for it in (item, label))
    return connection.execute(items).scalar_one(), connection.execute(labels).scalar_one()
