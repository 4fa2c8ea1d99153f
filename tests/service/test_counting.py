"""The inbox knows how much it keeps, whoever stores, sweeps or goes away meanwhile."""

import asyncio
import hashlib
import threading
import time

import pytest

from protocols.service.inbox import items
from protocols.service.inbox.database import Database
from protocols.service.inbox.keeping import Inbox, _kept
from protocols.service.inbox.storing import Arrival, Delivery
from protocols.service.settings import Keeping, Policy


def arrival(number, answer="unmatched"):
    content = bytes([number]) * (number + 1)
    digest = hashlib.sha256(content).hexdigest()
    told = {"answer": answer, "label_id": 0, "label": "red", "slot": 0, "margin": 0.1, "p_value": None, "score": None}
    return Arrival(
        id=f"item-{number}",
        media="application/x-float32",
        content=content,
        digest=digest,
        **told,
        keep=True,
        inline=True,
    )


def delivery(*numbers, received=None, answer="unmatched"):
    came = time.time() if received is None else received
    return Delivery("small", 0, came, None, [arrival(number, answer) for number in numbers])


@pytest.fixture
def inbox(tmp_path):
    database = Database.in_folder(tmp_path)
    yield Inbox(database, tmp_path, Keeping(policy=Policy(1.0, 1.0, 1.0), sample_days=1.0))
    database.close()


def in_the_table(inbox):
    return inbox.database.read_now(_kept)


def test_what_is_stored_while_the_inbox_is_swept_counts(inbox, monkeypatch):
    """Whatever the sweep has read by then is old."""
    has_read, may_go_on = threading.Event(), threading.Event()
    read_now = inbox.database.read_now

    def slow(work):
        result = read_now(work)
        has_read.set()
        assert may_go_on.wait(20)
        return result

    async def main():
        monkeypatch.setattr(inbox.database, "read_now", slow)
        sweeping = asyncio.create_task(inbox.sweep())
        await asyncio.to_thread(has_read.wait, 0.5)
        monkeypatch.setattr(inbox.database, "read_now", read_now)
        await inbox.store(delivery(1, 2, 3))
        may_go_on.set()
        await sweeping

    asyncio.run(main())
    assert inbox.kept == in_the_table(inbox)
    assert (inbox.kept.items, inbox.kept.size) == (3, 2 + 3 + 4)


def test_old_samples_count_no_more(inbox):
    async def main():
        await inbox.store(delivery(1, 2, 3, received=time.time() - 2 * 86_400, answer="matched"))
        await inbox.store(delivery(4, 5))
        return await inbox.sweep()

    assert asyncio.run(main()).items == 3
    assert inbox.kept == in_the_table(inbox)
    assert (inbox.kept.items, inbox.kept.size) == (2, 5 + 6)


async def given_up(inbox, request):
    """A request that is cancelled between its commit and its answer."""
    committing, may_commit = threading.Event(), threading.Event()

    def slow(connection):
        committing.set()
        assert may_commit.wait(20)

    first = asyncio.create_task(inbox.database.write(slow))
    await asyncio.to_thread(committing.wait, 20)
    asked = asyncio.create_task(request)
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    may_commit.set()
    await first


def test_what_was_stored_or_deleted_for_somebody_who_has_gone_counts(inbox):
    async def main():
        await given_up(inbox, inbox.store(delivery(1, 2)))
        await inbox.store(delivery(7))
        assert inbox.kept.items == 3
        await given_up(inbox, inbox.remove(lambda connection: items.remove(connection, "small", "item-1")))
        await inbox.store(delivery(8))

    asyncio.run(main())
    assert inbox.kept == in_the_table(inbox)
    assert (inbox.kept.items, inbox.kept.size) == (3, 3 + 8 + 9)
