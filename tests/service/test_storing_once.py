"""Whatever is sent again, in whatever company, is one row; a literal dictionary says what must be there."""

import asyncio
import hashlib
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from protocols.service.inbox import items
from protocols.service.inbox.database import Database
from protocols.service.inbox.idempotency import RequestKey
from protocols.service.inbox.items import Filter
from protocols.service.inbox.refusals import ConflictError, ReusedKeyError
from protocols.service.inbox.storing import Arrival, Delivery, store
from protocols.service.inbox.tables import meta

counted = itertools.count()


def arrival(name, content, keep=True):
    digest = hashlib.sha256(content).hexdigest()
    return Arrival(name, "text/plain", content, digest, "unmatched", 0, "red", 0, 0.5, None, None, keep, True)


def delivery(model, several, key=None):
    body = repr(several).encode()
    return Delivery(
        model,
        0,
        1.0,
        None,
        [arrival(name, content, keep) for name, content, keep in several],
        request=None if key is None else RequestKey.of(None, model, key, body),
        response=lambda fates: {"fates": list(fates)},
    )


def literal(model, several, key, rows, done):
    """What one request must be answered, and what must be there afterwards, one after the other."""
    place = None if key is None else (model, key)
    if place in done:
        body, answer = done[place]
        return answer if body == several else ReusedKeyError
    added, fates = {}, []
    for name, content, keep in several:
        known = added.get(name, rows.get(name))
        if known not in (None, content):
            return ConflictError
        fates.append("there" if known is not None else "stored" if keep else "passed")
        if fates[-1] == "stored":
            added[name] = content
    rows.update(added)
    if place is not None:
        done[place] = (several, fates)
    return fates


@pytest.fixture(scope="module")
def database(tmp_path_factory, new_database):
    url = new_database()
    database = Database(url) if url else Database.in_folder(tmp_path_factory.mktemp("inbox"))
    yield database
    database.close()


inputs = st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2"]), st.booleans())
requests = st.tuples(st.lists(inputs, min_size=1, max_size=3), st.sampled_from([None, "k", "l"]))


@given(waves=st.lists(st.lists(requests, min_size=1, max_size=5), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_retries_in_any_company_give_one_row(database, waves):
    model = f"model-{next(counted)}"  # a model of its own: an empty inbox
    rows, done = {}, {}

    async def send(wave):
        asked = (database.write_together(store, delivery(model, *request)) for request in wave)
        return await asyncio.gather(*asked, return_exceptions=True)

    for wave in waves:
        for request, found in zip(wave, asyncio.run(send(wave)), strict=True):
            expected = literal(model, *request, rows, done)
            if isinstance(expected, list):
                fates = found.again.response["fates"] if found.again is not None else list(found.fates)
                assert fates == expected
            else:
                assert type(found) is expected
    there = database.read_now(lambda it: [(row, items.content(it, None, row.number)) for row in all_of(it, model)])
    assert {row.id: content for row, content in there} == rows
    assert len(there) == len(rows)


def all_of(connection, model):
    return items.page(connection, model, Filter(), limit=1000)


def test_one_that_fails_takes_back_only_itself(database):
    """Where a shared call fails, each is tried alone; what is said of one is not said of another."""

    def put(connection, names):
        for name in names:
            connection.execute(insert(meta).values(name=name, value="there"))
        return list(names)

    async def all_of_them():
        asked = (database.write_together(put, name) for name in ("a", "b", "a", "c"))
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(all_of_them())
    assert sorted(it for it in found if isinstance(it, str)) == ["a", "b", "c"]
    assert sum(isinstance(it, Exception) for it in found) == 1
    among = select(func.count()).where(meta.c.name.in_(["a", "b", "c"]))
    assert database.read_now(lambda it: it.execute(among).scalar_one()) == 3
