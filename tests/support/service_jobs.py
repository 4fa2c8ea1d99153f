"""Jobs of a service as a client follows them, and what a review has stored."""

import time

from sqlalchemy import select
from support.inbox_rows import with_database

from protocols.service.inbox.tables import member, review_group


def over(client, started, within=120):
    """The document of a job when it is over."""
    assert started.status_code == 202, started.text
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = client.get(started.headers["Location"]).json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def done(client, started):
    """The result of a job that must be done."""
    found = over(client, started)
    assert found["state"] == "done", found
    assert found["share"] == 1
    return found["result"]


def groups_of(data, number):
    chosen = (
        select(review_group.c.middle, review_group.c.gain, member.c.item)
        .join(member, member.c.review_group == review_group.c.number)
        .where(review_group.c.review == number)
        .order_by(review_group.c.place, member.c.place)
    )
    found = {}
    for middle, gain, of_group in with_database(data, lambda it: it.execute(chosen).all()):
        found.setdefault((middle, gain), []).append(of_group)
    return found
