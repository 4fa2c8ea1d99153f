"""The parts of a running service, and how they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from protocols.service.answering.decoders import Decoders
from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.answering.served_model import ServedModel, freeze
from protocols.service.callers import SERVICE
from protocols.service.drift.watching import Watching
from protocols.service.engines.unavailable import UnavailableError
from protocols.service.gate.first_key import ensure
from protocols.service.gate.holding import FolderHold, ServerHold, TakenError
from protocols.service.gate.keys import KeyRing
from protocols.service.gate.sessions import Sessions
from protocols.service.gate.streams import Streams
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import record_generation
from protocols.service.inbox.keeping import Inbox
from protocols.service.jobs.runner import JobRunner
from protocols.service.replicas.following import Follower
from protocols.service.replicas.places import Place
from protocols.service.replicas.publishing import Publisher
from protocols.service.settings import Settings
from slots.errors import StorageError, UsageError
from slots.storage.atomic import make_folders, storage

Swapped = Callable[[ServedModel, Loaded, Loaded], None]
Answered = Callable[[ServedModel, Answers, float], None]


@dataclass
class Service:
    """What the routes work with.

    Parameters
    ----------
    settings : Settings
        As it was started.
    database : Database
        The inbox.
    models : dict of str to ServedModel
        By the name that clients use.
    keys : KeyRing
        Who may come in.
    sessions : Sessions
        Of browsers.
    followers : dict of str to Follower
        Of models that another service writes; here they only answer.
    publisher : Publisher or None
        Where other services are to follow.
    """

    settings: Settings
    database: Database
    models: dict[str, ServedModel]
    keys: KeyRing
    sessions: Sessions
    followers: dict[str, Follower] = field(default_factory=dict)
    publisher: Publisher | None = None
    ready: bool = False
    """Whether requests are welcome; false again from the moment it is asked to stop."""
    on_swap: list[Swapped] = field(default_factory=list)
    """Told in the event loop when a new generation of a model answers."""
    on_answers: list[Answered] = field(default_factory=list)
    """Told after each batch, in the event loop or a thread, with the seconds in the model."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service is asked to stop: streams end themselves."""
    ousted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when another service has the database: this one must end."""
    lost: str = ""
    """Why, then."""

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.database, self.settings.data, self.settings.keeping)
        """What came in, on disk, within bounds."""
        limits = self.settings.limits
        self.streams = Streams(per_key=limits.streams_per_key, most=limits.streams)
        """Streams of events that are open."""
        self.decoders = Decoders()
        """Make inputs of what requests bring."""
        self.jobs = JobRunner(self.database, self.models, self.settings.data, self.inbox.blobs.get)
        self.drift = Watching(self.database, self.models)
        """Has the stream of a model changed?"""
        self.on_answers.append(self.drift.answered)
        self.on_swap.append(self.drift.swapped)
        self.on_swap.append(lambda served, _before, _after: self.jobs.again.begin(served.name))
        if self.publisher is not None:
            self.on_swap.append(self.publisher.swapped)
        self._tasks: list[asyncio.Task[None]] = []
        self._later: set[asyncio.Task[None]] = set()
        self._hold: ServerHold | None = None
        self._opened = contextlib.ExitStack()  # what is closed at the end, the last first

    @classmethod
    def open(cls, settings: Settings) -> Service:
        """Load the models and open the database; nothing runs yet.

        Raises
        ------
        ModelError
            If a model cannot be loaded.
        StorageError
            If the data folder or the database cannot be used.
        UsageError
            If other machines can reach it and no key is in use.
        """
        with storage(settings.data):
            make_folders(settings.data)
        with contextlib.ExitStack() as opened:
            opened.callback(FolderHold(settings.data).close)
            database = Database(settings.database) if settings.database else Database.in_folder(settings.data)
            opened.callback(database.close)
            hold = ServerHold(settings.database) if database.on_server else None
            if hold is not None:
                database.before = hold.check
                opened.callback(hold.close)
            if settings.admin_key:
                database.write_now(lambda it: ensure(it, settings.admin_key))
            keys = KeyRing(database)
            if settings.public and keys.empty:
                raise UsageError(
                    f"`host` must be a loopback address while no key is in use, got {settings.host}. "
                    "Make a key first: slots keys add NAME --role admin --data DIR, or give one in SLOTS_ADMIN_KEY."
                )
            sessions = Sessions(settings.data)
            followers = {name: _follower(settings, name, url) for name, url in settings.follow.items()}
            place = Place(settings.publish) if settings.publish else None
            models = {
                name: ServedModel(name, folder, settings.device, settings.limits)
                for name, folder in (settings.models | {name: it.folder for name, it in followers.items()}).items()
            }
            publisher = Publisher({name: models[name] for name in settings.models}, place) if place else None
            service = cls(settings, database, models, keys, sessions, followers, publisher)
            service._hold, service._opened = hold, opened.pop_all()
        for served in models.values():
            served.swapped = service._tell_swapped
            served.answered = service._tell_answered
        return service

    async def start(self) -> None:
        """Begin to answer and to watch the model folders."""
        for served in self.models.values():
            served.start()
            await _tolerant(self._note(served.name, served.current.generation))
        await self.jobs.start()
        self._tasks = [asyncio.create_task(self._watch(served)) for served in self.models.values()]
        self._tasks.append(asyncio.create_task(self._watch_keys()))
        if self._hold is not None:
            self._tasks.append(asyncio.create_task(self._watch_hold(self._hold)))
        self._tasks += [asyncio.create_task(it.run(self.settings.follow_seconds)) for it in self.followers.values()]
        if self.publisher is not None:
            self._tasks.append(asyncio.create_task(self.publisher.run()))
        self.inbox.start()
        self.drift.start()
        await asyncio.to_thread(freeze, first=True)
        self.ready = True

    async def stop(self) -> None:
        """End the watching, answer what waits, commit what waits."""
        self.ready = False
        self.ending.set()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.jobs.stop()
        await self.inbox.stop()
        for served in self.models.values():
            await served.stop()
        await self.drift.stop()
        await asyncio.gather(*self._later)
        self.decoders.close()
        await asyncio.to_thread(self.database.close)
        await asyncio.to_thread(self._opened.close)

    def replica_problem(self, name: str) -> str:
        """Why a model cannot be followed, or not be published, at present; empty if all is well."""
        if name in self.followers:
            return self.followers[name].problem
        return self.publisher.problems.get(name, "") if self.publisher else ""

    def _tell_answered(self, served: ServedModel, answers: Answers, seconds: float) -> None:
        for told in self.on_answers:
            told(served, answers, seconds)

    def _tell_swapped(self, served: ServedModel, before: Loaded, after: Loaded) -> None:
        for told in self.on_swap:
            told(served, before, after)
        self.later(self._note(served.name, after.generation))

    async def _note(self, name: str, generation: int) -> None:
        """Write down that another generation answers; the next start does where the database is away until then."""
        while not self.ending.is_set():
            try:
                await self.database.write(lambda it: record_generation(it, SERVICE, name, generation))
            except UnavailableError:
                await asyncio.sleep(0.5)
            else:
                return

    def later(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something that nobody waits for; the service waits for it before it closes the database.

        Parameters
        ----------
        work : coroutine
            If the database refuses it, it is not done, and nobody is told.
        """
        task = asyncio.create_task(_tolerant(work))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _watch(self, served: ServedModel) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            await served.refresh()

    async def _watch_keys(self) -> None:
        """Another process, such as the command line, may make and revoke keys."""
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            with contextlib.suppress(StorageError):
                await self.keys.refresh()

    async def _watch_hold(self, hold: ServerHold) -> None:
        """Whoever was away from the database may find another service there, and ends."""
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            try:
                await asyncio.to_thread(hold.look)
            except TakenError as error:
                self.lost = str(error)
                self.ousted.set()
                return


def _follower(settings: Settings, name: str, url: str) -> Follower:
    follower = Follower(settings.data / "followed" / name, Place(url))
    follower.begin()
    return follower


async def _tolerant(work: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(StorageError):
        await work
