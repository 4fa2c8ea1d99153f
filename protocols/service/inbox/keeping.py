"""The inbox as a service keeps it: what is stored, how much there may be, and what goes again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, select

from protocols.service.callers import SERVICE
from protocols.service.inbox import idempotency
from protocols.service.inbox.blobs import Blobs
from protocols.service.inbox.database import Database, Work
from protocols.service.inbox.events import record
from protocols.service.inbox.idempotency import InFlight
from protocols.service.inbox.items import Item, in_parts
from protocols.service.inbox.storing import Arrival, Delivery, Receipt, digests, store
from protocols.service.inbox.tables import item, label, member
from protocols.service.settings import Keeping
from slots.errors import StorageError

_LOOK_SECONDS = 1.0  # between looks at the free disk
_SWEEP_SECONDS = 3600.0
_REMEMBERED_SECONDS = 86_400.0  # how long a request may come again


@dataclass
class Kept:
    """How much is kept.

    Parameters
    ----------
    items : int
        Items of all models (count).
    size : int
        Their contents (bytes).
    """

    items: int
    size: int


@dataclass(frozen=True)
class Swept:
    """What a sweep removed.

    Parameters
    ----------
    items : int
        Samples of matched items that were old (count).
    blobs : int
        Files that no item named (count).
    requests : int
        Answers to requests that were old (count).
    """

    items: int
    blobs: int
    requests: int


class Inbox:
    """What came in, on disk, within bounds.

    Parameters
    ----------
    database : Database
        Of the service.
    folder : Path
        Of the service's own data; large contents lie in its ``blobs``.
    keeping : Keeping
        What is kept, and how much.
    """

    def __init__(self, database: Database, folder: Path, keeping: Keeping) -> None:
        self.database, self.keeping = database, keeping
        self.blobs = Blobs(folder / "blobs")
        self.in_flight = InFlight()
        self.kept = database.read_now(_kept)
        self._folder = folder
        self._looked, self._free = float("-inf"), 0
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep from time to time, in the running event loop."""
        self._sweeping = asyncio.create_task(self._sweep_all())

    async def stop(self) -> None:
        """End the sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping

    async def store(self, delivery: Delivery) -> Receipt:
        """Keep what a request brought; when this returns it is committed.

        Parameters
        ----------
        delivery : Delivery
            Its arrivals, answered.

        Returns
        -------
        Receipt

        Raises
        ------
        ConflictError
            If an id has another content already.
        ReusedKeyError
            If the request's key came before with another request.
        StorageError
            If there is no room for what should be kept, or the disk or the database refuse.
        """
        wanted = [it for it in delivery.arrivals if it.keep]
        if wanted:
            await self._check_room(delivery.model, wanted)
        return await asyncio.shield(self._commit(delivery, wanted))  # counted even if whoever asked has gone

    async def _commit(self, delivery: Delivery, wanted: list[Arrival]) -> Receipt:
        """Keep contents, then commit, then count."""
        large = {it.digest: it.content for it in wanted if not it.inline}
        with self.blobs.holding(large) if large else contextlib.nullcontext():
            if large:
                await asyncio.to_thread(self._put, large)
            receipt = await self.database.write_together(store, delivery)
        stored = [it for it, fate in zip(delivery.arrivals, receipt.fates, strict=False) if fate == "stored"]
        self.kept.items += len(stored)
        self.kept.size += sum(len(it.content) for it in stored)
        return receipt

    def check_room(self, n: int, size: int) -> None:
        """Refuse what would go beyond the bounds; what is on its way at the same time may go beyond by its own size.

        Parameters
        ----------
        n : int
            Items that should be kept (count).
        size : int
            Their contents (bytes).

        Raises
        ------
        StorageError
            If there is no room.
        """
        keeping = self.keeping
        if self.kept.items + n > keeping.items:
            raise StorageError(
                f"The inbox has {self.kept.items} of at most {keeping.items} items, and {n} more should be kept. "
                "Delete some, or start the service with a larger bound."
            )
        if self.kept.size + size > keeping.size:
            raise StorageError(
                f"The inbox has {self.kept.size} of at most {keeping.size} bytes, and {size} more should be kept. "
                "Delete items, or start the service with a larger bound."
            )
        if self.free() < keeping.free:
            raise StorageError(
                f"The disk of the data folder has {self._free} bytes free, fewer than the {keeping.free} that must "
                "stay so. Nothing of the request was kept; make room, and send it again."
            )

    def free(self) -> int:
        """Bytes free on the disk of the data folder, looked at once a second."""
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._free, self._looked = shutil.disk_usage(self._folder).free, now
        return self._free

    async def sweep(self) -> Swept:
        """Remove old samples of matched items, blobs that no item names, and answers to old requests."""
        oldest = time.time() - self.keeping.sample_days * 86_400
        expired = await self.database.write(lambda connection: _expired(connection, oldest))
        # What is kept is not counted anew: what is committed while a count is read would be counted never or twice.
        self.kept.items -= expired.items
        self.kept.size -= expired.size
        before = time.time() - _REMEMBERED_SECONDS
        requests = await self.database.write(lambda connection: idempotency.forget(connection, before))
        blobs = await asyncio.to_thread(self.blobs.sweep, self._named)
        return Swept(expired.items, blobs, requests)

    async def remove(self, work: Work[Item]) -> None:
        """Delete an item by work that tells which; its content goes too, if no other item has the same.

        Parameters
        ----------
        work : callable
            As `Database.write` takes it.
        """
        await asyncio.shield(self._remove(work))  # counted even if whoever asked has gone

    async def _remove(self, work: Work[Item]) -> None:
        gone = await self.database.write(work)
        self.kept.items -= 1
        self.kept.size -= gone.size
        await asyncio.to_thread(self.blobs.release, gone.digest, self._named)

    async def _check_room(self, model: str, wanted: list[Arrival]) -> None:
        """Refuse what would go beyond the bounds; what is there already needs no room."""
        try:
            self.check_room(len(wanted), sum(len(it.content) for it in wanted))
        except StorageError:
            there = await self.database.read(lambda connection: digests(connection, model, [it.id for it in wanted]))
            if any(there.get(it.id) != it.digest for it in wanted):
                raise

    def _put(self, large: dict[str, bytes]) -> None:
        for digest, content in large.items():
            self.blobs.put(digest, content)

    def _named(self, digests: list[str]) -> set[str]:
        return self.database.read_now(lambda connection: named(connection, digests))

    async def _sweep_all(self) -> None:
        while True:
            with contextlib.suppress(StorageError):  # a full disk is told to whoever sends something
                await self.sweep()
            await asyncio.sleep(_SWEEP_SECONDS)


def old_samples_removed(connection: Connection, before: float) -> Kept:
    """Delete matched items that nobody labelled, asked about or learned from; tells how many they were.

    Parameters
    ----------
    connection : Connection
        In a transaction of the writer.
    before : float
        Only those that came in before this (seconds since 1970).
    """
    said = select(label.c.item).where(label.c.item == item.c.number).exists()
    asked = select(member.c.item).where(member.c.item == item.c.number).exists()
    old = (item.c.answer == "matched") & (item.c.state == "open") & (item.c.received < before)
    sizes = connection.execute(delete(item).where(old, ~said, ~asked).returning(item.c.size)).scalars().all()
    return Kept(len(sizes), sum(sizes))


def _expired(connection: Connection, before: float) -> Kept:
    """Remove old samples, and write down that the service did, if there were any."""
    gone = old_samples_removed(connection, before)
    if gone.items:
        record(connection, SERVICE, "item.expire", detail={"items": gone.items})
    return gone


def named(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Which of some digests are those of a blob that an item needs."""
    found: set[str] = set()
    for several in in_parts(list(digests)):
        query = select(item.c.digest).where(item.c.digest.in_(several), item.c.content.is_(None))
        found.update(connection.execute(query).scalars())
    return found


def _kept(connection: Connection) -> Kept:
    n, size = connection.execute(select(func.count(), func.coalesce(func.sum(item.c.size), 0))).one()
    return Kept(int(n), int(size))
