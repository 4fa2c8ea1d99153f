"""Bodies within bounds: what is looked at in JSON before it is read, and how much of all bodies is held at a time."""

import asyncio
import json
import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.service.api.json_bounds import check_json
from protocols.service.api.problems import Problem
from protocols.service.callers import LOCAL, NOBODY
from protocols.service.settings import Limits
from protocols.service.web.bodies import BoundedBodies
from protocols.service.web.memory import Returned

TEXT = st.text(st.sampled_from('ab[]{}",\\:0 ü'), max_size=8)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=30,
)


def depth(it):
    if isinstance(it, dict):
        it = list(it.values())
    return 1 + max(map(depth, it), default=0) if isinstance(it, list) else 0


def refusal(document, **limits):
    try:
        check_json(document, Limits(**limits))
    except Problem as problem:
        return problem.status, problem.detail
    return None


@given(VALUE, st.integers(0, 5), st.booleans())
def test_the_depth_is_that_of_the_brackets_outside_texts(value, levels, ascii_only):
    document = json.dumps(value, ensure_ascii=ascii_only).encode()
    found = refusal(document, depth=levels)
    assert (found is not None) == (depth(value) > levels)
    assert found is None or "levels deep" in found[1]


@given(VALUE)
def test_what_is_json_of_one_meaning_is_let_through(value):
    assert refusal(json.dumps(value).encode()) is None
    assert refusal(json.dumps(value, indent=2, ensure_ascii=False).encode()) is None


@given(st.lists(st.tuples(TEXT, st.integers(0, 9)), max_size=6), st.integers(0, 3))
def test_a_key_that_an_object_has_twice_is_refused_at_any_depth(pairs, levels):
    inner = ",".join(f"{json.dumps(name)}:[{value}]" for name, value in pairs)
    document = '{"x":[' * levels + "{" + inner + "}" + "]}" * levels
    twice = len({name for name, _ in pairs}) < len(pairs)
    found = refusal(document.encode())
    assert (found is not None) == twice
    assert not twice or (found[0] == 422 and "each key once" in found[1])


@given(st.binary(max_size=40))
def test_any_bytes_are_let_through_or_refused(document):
    assert refusal(document) is None or refusal(document)[0] in (413, 422)


@pytest.mark.parametrize(
    ("document", "limits", "status", "says"),
    [
        (b"[1,2,3,4]", {"values": 7}, None, ""),
        (b"[1,2,3,4,5]", {"values": 7}, 413, "may hold 7 values"),
        (b"[[],[]]", {"values": 12}, 413, "may hold 12 values"),
        (b'["a,b,c,d,e,f"]', {"values": 4}, None, ""),
        (b'["","","","","",""]', {"values": 5}, 413, "may hold 5 values"),
        (b'{"a":NaN}', {}, 422, "must be finite, got NaN"),
        (b"[1,2,-Infinity]", {}, 422, "must be finite, got -Infinity"),
        (b'"\xff"', {}, 422, "must be UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), {}, 422, "must be UTF-8"),
        (b'{"a":' + b"1" * 5000 + b"}", {}, 422, "more digits than are read"),
        (b'{"a":1,"\\u0061":2}', {}, 422, "got 'a' twice"),
        (b'{"[1]":1,"[2]":2}', {}, None, ""),
    ],
)
def test_documents_and_what_is_said_of_them(document, limits, status, says):
    found = refusal(document, **limits)
    assert (found and found[0]) == status
    assert says in (found or (None, ""))[1]


class Client:
    """Sends a body in parts, each when it is told to, and keeps the answer."""

    def __init__(self, parts, *, caller=LOCAL, encoding=None):
        self.parts, self.told, self.answer = list(parts), asyncio.Event(), []
        headers = [] if encoding is None else [(b"content-encoding", encoding)]
        self.scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "slots.caller": caller}

    async def receive(self):
        if len(self.parts) == 1:
            await self.told.wait()
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message):
        self.answer.append(message)

    @property
    def status(self):
        return self.answer[0]["status"] if self.answer else None


async def accepted(_scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", str(len(body)).encode())]})


def test_bodies_of_all_requests_together_are_bounded():
    async def body():
        app = BoundedBodies(accepted, Limits(body=100, bodies=150))
        first, second, third = (Client([b"x" * 50, b"x" * 50]) for _ in range(3))
        tasks = [asyncio.create_task(app(it.scope, it.receive, it.send)) for it in (first, second, third)]
        await asyncio.sleep(0)  # each has sent its first half
        for it, task in zip((first, second, third), tasks, strict=True):
            it.told.set()
            await task
        last = Client([b"x" * 100])
        last.told.set()
        await app(last.scope, last.receive, last.send)
        return first, second, third, last

    *several, last = asyncio.run(body())
    assert [it.status for it in several] == [503, 200, 200]
    assert dict(several[0].answer[0]["headers"])[b"retry-after"] == b"1"
    assert last.status == 200


def test_somebody_without_a_key_sends_little():
    async def statuses(caller):
        app, found = BoundedBodies(accepted, Limits(body=100, first_body=10)), []
        for n_bytes in (10, 11, 101):
            client = Client([b"x" * n_bytes], caller=caller)
            client.told.set()
            await app(client.scope, client.receive, client.send)
            found.append(client.status)
        return found

    assert asyncio.run(statuses(NOBODY)) == [200, 413, 413]
    assert asyncio.run(statuses(LOCAL)) == [200, 200, 413]


def test_memory_of_a_large_body_goes_back_soon():
    async def due(n_bytes):
        returned = Returned()
        returned.after(n_bytes)
        first = returned.due
        await asyncio.sleep(0.7)
        return first, returned.due

    assert asyncio.run(due(1000)) == (False, False)
    assert asyncio.run(due(1 << 20)) == (platform.libc_ver()[0] == "glibc", False)
