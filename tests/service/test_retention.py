"""What goes again: old matched items, contents that no item names, answers to old requests; and what stays."""

import hashlib
import time

import pytest
from sqlalchemy import delete, insert, update
from support.inbox_rows import items, put_items, put_labels, with_database
from support.service import rows, running

from protocols.service.inbox import events, reviews
from protocols.service.inbox.reviews import Query, QueryList
from protocols.service.inbox.tables import done_request, item, label
from protocols.service.settings import Keeping, Policy

ITEMS = "/api/v1/models/small/items"
DAY = 86_400.0


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def blobs(data):
    """Names of the files that contents lie in."""
    return {it.name for it in (data / "blobs").rglob("*") if it.is_file()}


def put_blob(data, name, content):
    """A content as a file, as a crash may leave it without a row."""
    path = data / "blobs" / name[:2] / name[2:4] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def data(small, tmp_path):
    """Twelve matched items that came forty days ago, and two unmatched ones."""
    x, _ = rows(400, 3, classes=4)
    put_items(tmp_path, small, x)
    by_answer = {}
    for number, it in items(tmp_path).items():
        by_answer.setdefault(it["answer"], []).append(number)
    keep = [*by_answer["matched"][:12], *by_answer["unmatched"][:2]]

    def work(connection):
        connection.execute(delete(item).where(item.c.number.not_in(keep)))
        connection.execute(update(item).values(received=time.time() - 40 * DAY))

    with_database(tmp_path, work)
    return tmp_path


def test_old_matched_items_go_unless_somebody_said_or_asked_something_of_them(small, data):
    there = items(data)
    matched = [number for number, it in there.items() if it["answer"] == "matched"]
    unmatched = there.keys() - set(matched)
    recent, labelled, withdrawn, asked, learned, *old = matched
    put_labels(data, {labelled: "red", withdrawn: "red"})
    groups = (Query(asked, 1, (asked,)),)

    def work(connection):
        connection.execute(update(item).where(item.c.number == recent).values(received=time.time() - 29 * DAY))
        connection.execute(update(item).where(item.c.number == learned).values(state="learned"))
        taken_back = {"item": withdrawn, "label": None, "given": time.time(), "by": "ann", "sure": 1, "source": "api"}
        connection.execute(insert(label).values(**taken_back))
        connection.execute(update(item).where(item.c.number == withdrawn).values(state="open"))
        reviews.put(connection, "small", QueryList(0, 1, 1, 0.9, groups))

    with_database(data, work)
    keeping = Keeping(policy=Policy(1.0, 1.0, 1.0), items=len(matched) + len(unmatched))
    with running(small, data, keeping=keeping) as client:
        until(lambda: len(items(data)) < 14)
        assert set(items(data)) == {recent, labelled, withdrawn, asked, learned, *unmatched}
        (told,) = [it for it in client.get("/api/v1/events").json() if it["action"] == "item.expire"]
        assert (told["by"], told["key_id"], told["detail"]) == ("service", None, {"items": len(old)})
        until(lambda: client.post(ITEMS, json={"inputs": [[9.0] * 6]}).status_code == 200)  # there is room again
    with running(small, data, keeping=Keeping(sample_days=20.0)):
        until(lambda: recent not in items(data))
        assert set(items(data)) >= {labelled, withdrawn, asked, learned, *unmatched}


def test_contents_that_no_item_names_go(small, data):
    """A crash leaves files without rows; a row that holds its content itself needs no file."""
    matched = next(number for number, it in items(data).items() if it["answer"] == "matched")
    others = [number for number in items(data) if number != matched]
    needed, twice, orphan = (bytes([it]) * 40 for it in range(3))

    def work(connection):
        for number, content in zip(others, (needed, twice, twice), strict=False):
            values = {"content": None, "digest": digest_of(content), "size": len(content), "received": time.time()}
            connection.execute(update(item).where(item.c.number == number).values(**values))
        connection.execute(update(item).where(item.c.number == matched).values(digest=digest_of(orphan)))

    with_database(data, work)
    for content in (needed, twice, orphan, b"nobody's"):
        put_blob(data, digest_of(content), content)
    put_blob(data, "notes.txt", b"of somebody else")
    with running(small, data, keeping=Keeping(sample_days=1e6)) as client:
        until(lambda: len(blobs(data)) < 5)
        assert blobs(data) == {digest_of(needed), digest_of(twice), "notes.txt"}
        first, second = (it["id"] for it in items(data).values() if it["digest"] == digest_of(twice))
        assert client.delete(f"{ITEMS}/{first}").status_code == 204
        assert client.get(f"{ITEMS}/{second}/content").content == twice
        assert client.delete(f"{ITEMS}/{second}").status_code == 204
        assert blobs(data) == {digest_of(needed), "notes.txt"}


def test_the_content_of_an_item_that_expires_goes_with_it(small, data):
    content = b"\x01" * 40
    old = next(number for number, it in items(data).items() if it["answer"] == "matched")
    values = {"content": None, "digest": digest_of(content), "size": len(content)}
    with_database(data, lambda it: it.execute(update(item).where(item.c.number == old).values(**values)))
    put_blob(data, digest_of(content), content)
    with running(small, data):
        until(lambda: not blobs(data))
    assert old not in items(data)


def test_a_request_is_remembered_for_a_day(small, tmp_path):
    sent = {"json": {"inputs": [[1.0] * 6], "store": "all"}, "headers": {"Idempotency-Key": "of yesterday"}}
    with running(small, tmp_path) as client:
        first = client.post(ITEMS, **sent).json()
        assert first["items"][0]["fate"] == "stored"
        assert client.post(ITEMS, **sent).json() == first
    aged = update(done_request).values(at=time.time() - 23 * 3600)
    with_database(tmp_path, lambda it: it.execute(aged))
    with running(small, tmp_path) as client:
        assert client.post(ITEMS, **sent).json() == first
    with_database(tmp_path, lambda it: it.execute(update(done_request).values(at=time.time() - 25 * 3600)))
    with running(small, tmp_path) as client:
        until(lambda: client.post(ITEMS, **sent).json()["items"][0]["fate"] == "there")
    assert with_database(tmp_path, events.verify).faults == ()
