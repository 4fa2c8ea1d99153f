"""People who use a service and write down what it told them: each act, and what must be there once it is acknowledged.

An act that nobody answered is kept and sent again, the same with the same ``Idempotency-Key``, until it is answered: by
then it must have been done once. Each person does one thing at a time, so that whoever looks between knows of everyone
at most one act whose outcome is open.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import random
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

import numpy as np
from PIL import Image

DIMENSIONS = 16
NAMES = ("red", "green", "blue", "white", "grey", "black")
MODEL = "/api/v1/models/small"
PICTURES = "/api/v1/models/pictures"
_GONE = (ConnectionError, http.client.HTTPException, TimeoutError, OSError)


@dataclass
class Act:
    """Something that a person asks for, and what it does.

    Parameters
    ----------
    method, path : str
        Of the request.
    body : object
        Its JSON document, or bytes.
    items : dict of str to bytes
        Contents of the items that must be there afterwards, by id.
    gone : tuple of str
        Items that must not.
    labels : dict of str to str or None, optional
        What the person says of each item afterwards: so many rows of labels; None for an act that is no such.
    then : callable
        ``then(document)``: what else is known afterwards, told once.
    keyed : bool
        Whether it goes with an ``Idempotency-Key``.
    fine : tuple of int
        Statuses that answer it.
    """

    method: str
    path: str
    body: Any = None
    items: dict[str, bytes] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    labels: dict[str, str | None] | None = None
    then: Callable[[Any], None] = lambda _document: None
    keyed: bool = True
    fine: tuple[int, ...] = (200, 204)

    def __post_init__(self) -> None:
        self.key = str(uuid.uuid4())
        self.tries = 0


class Wrong(AssertionError):
    """The service answered what it must not."""


class Connection:
    """One person's connection to wherever the service is now."""

    def __init__(self, key: str) -> None:
        self.address, self._key = "", key
        self._connection: http.client.HTTPConnection | None = None

    def move(self, address: str) -> None:
        self.address = address.removeprefix("http://")
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def send(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any, Message]:
        """Status, document and headers of the answer; raises one of `_GONE` where there is none."""
        headers = {"Authorization": f"Bearer {self._key}"} | ({} if key is None else {"Idempotency-Key": key})
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None and not isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self.address, timeout=60)
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except _GONE:
            self.close()
            raise
        return answer.status, json.loads(text) if text else None, answer.headers


class Person:
    """Somebody who does one act after the other while the service is there.

    Parameters
    ----------
    name, key : str
        The key's name and the key.
    seed : int
        Decides what they do.
    """

    def __init__(self, name: str, key: str, seed: int) -> None:
        self.name, self.chance = name, random.Random(seed)
        self.connection = Connection(key)
        self.pending: Act | None = None
        self.counts: Counter[str] = Counter()
        self.items: dict[str, bytes] = {}
        self.gone: set[str] = set()
        self.labels: list[dict[str, str | None]] = []
        """Rows of labels, act by act, undoing among them."""
        self.generation = 0
        """The last one that an answer named."""
        self.failure: BaseException | None = None

    def choose(self) -> Act | None:
        """What to do next; None to wait a moment."""
        raise NotImplementedError

    def begin(self, address: str, stopping: threading.Event) -> None:
        """Go on, in a thread of one's own."""
        self.connection.move(address)
        self._thread = threading.Thread(target=self._run, args=(stopping,), name=self.name)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last request has its answer or its failure."""
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                if not self.step():
                    stopping.wait(0.01)
        except BaseException as error:  # noqa: BLE001  # told by `join`
            self.failure = error

    def step(self) -> bool:
        """Try one act; whether there may be another at once."""
        try:
            if self.pending is None:
                self.pending = self.choose()
            if self.pending is None:
                return False
            return self._try(self.pending)
        except _GONE:
            self.counts["without an answer"] += 1
            return False

    def _try(self, act: Act) -> bool:
        act.tries += 1
        status, document, headers = self.connection.send(act.method, act.path, act.body, act.key if act.keyed else None)
        if status in (429, 503):
            assert "Retry-After" in headers, headers
            self.counts["asked to come again"] += 1
            return False
        if status == 409 and act.tries > 1 and "is being answered" in document["detail"]:
            return False
        if status not in act.fine:
            raise Wrong(f"{self.name}: {act.method} {act.path} {str(act.body)[:200]} -> {status} {document}")
        self.items.update(act.items)
        for gone in act.gone:
            self.items.pop(gone)
            self.gone.add(gone)
        if act.labels is not None:
            self.labels.append(act.labels)
            self.counts["labels acknowledged"] += len(act.labels)
        self.counts["acts acknowledged"] += 1
        self.counts["items acknowledged"] += len(act.items)
        self.counts["sent again"] += act.tries > 1
        if isinstance(document, dict) and isinstance(document.get("generation"), int):
            self.generation = max(self.generation, document["generation"])
        act.then(document)
        self.pending = None
        return True


class Labeller(Person):
    """Somebody who labels, and takes back what they did last."""

    def __init__(self, name: str, key: str, seed: int) -> None:
        super().__init__(name, key, seed)
        self._done: list[tuple[int | None, Callable[[], None]]] = []  # for undo: place among `labels`, what else

    def label(self, ids: list[str]) -> Act:
        said: dict[str, str | None] = {it: self.chance.choice(NAMES) for it in ids}
        if self.chance.random() < 0.1:
            said[ids[0]] = None
        body = {"labels": [{"item": it, "label": name} for it, name in said.items()]}
        return Act("POST", f"{MODEL}/labels", body, labels=said, then=lambda _: self.remember(len(self.labels) - 1))

    def remember(self, place: int | None, back: Callable[[], None] = lambda: None) -> None:
        """Note an act that can be undone; the service keeps fifty."""
        self._done = [*self._done, (place, back)][-50:]

    def undo(self) -> Act | None:
        if not self._done:
            return None
        place, back = self._done[-1]
        said = None if place is None else {it: self._before(place, it) for it in self.labels[place]}

        def then(document: Any) -> None:
            assert document["items"] == len(said or {}) or place is None, (document, said)
            self._done.pop()
            back()

        return Act("POST", f"{MODEL}/labels/undo", labels=said, then=then)

    def _before(self, place: int, item: str) -> str | None:
        return next((it[item] for it in reversed(self.labels[:place]) if item in it), None)


class Sender(Labeller):
    """Somebody who sends items, with ids of their own or without, sends them again, labels some and deletes a few."""

    def __init__(self, name: str, key: str, seed: int, centres: np.ndarray) -> None:
        super().__init__(name, key, seed)
        self._draws = np.random.default_rng(seed)
        self._centres, self._n = centres, 0
        self._responses: list[tuple[Act, Any]] = []
        self._familiar: list[str] = []

    def choose(self) -> Act | None:
        what = self.chance.random()
        if what < 0.5 or len(self.items) < 5:
            return self._send()
        if what < 0.6:
            return self._again()
        if what < 0.65:
            return self._picture()
        if what < 0.7 and self._familiar:
            gone = self._familiar.pop()
            return Act("DELETE", f"{MODEL}/items/{gone}", gone=(gone,), keyed=False, fine=(204, 404))
        if what < 0.78:
            return self.undo() or self._send()
        rows = [it for it in self._known() if it not in self._familiar]
        return self.label(self.chance.sample(rows, min(len(rows), self.chance.randint(1, 3)))) if rows else self._send()

    def _known(self) -> list[str]:
        return [it for it in self.items if not it.startswith("picture")]

    def _send(self) -> Act:
        familiar = self.chance.random() < 0.1
        n = 1 if familiar else self.chance.randint(1, 4)
        rows = self._rows(n, familiar)
        contents = [row.astype("<f4").tobytes() for row in rows]
        self._n += 1
        own = familiar or self.chance.random() < 0.7
        ids = [
            f"{self.name}-{self._n}/{it}" if own else hashlib.sha256(content).hexdigest()
            for it, content in enumerate(contents)
        ]
        body = {"inputs": rows.tolist(), "store": "all"} | ({"ids": ids} if own else {})
        act = Act("POST", f"{MODEL}/items", body, items=dict(zip(ids, contents, strict=True)))

        def then(document: Any) -> None:
            assert [it["id"] for it in document["items"]] == ids
            assert {it["fate"] for it in document["items"]} == {"stored"}, document  # a first answer, or that again
            self._responses = [*self._responses, (act, document)][-50:]
            if familiar and document["items"][0]["answer"]["answer"] == "matched":
                self._familiar.append(ids[0])

        act.then = then
        return act

    def _again(self) -> Act:
        """What was answered before: with its key the same answer, without it every item is there."""
        if not self._responses:
            return self._send()
        before, told = self.chance.choice(self._responses)
        if self.gone & set(before.items):
            return self._send()
        act = Act("POST", before.path, before.body, items=before.items)
        if self.chance.random() < 0.5:
            act.key = before.key

            def then(document: Any) -> None:
                assert document == told, (document, told)

        else:

            def then(document: Any) -> None:
                assert {it["fate"] for it in document["items"]} == {"there"}, document

        act.then = then
        return act

    def _picture(self) -> Act:
        """A picture of more than 100,000 bytes: its content lies in a file beside the database."""
        self._n += 1
        content, name = picture(self.chance.getrandbits(32)), f"picture-{self.name}-{self._n}"
        return Act("POST", f"{PICTURES}/items/image?store=all&id={name}", content, items={name: content})

    def _rows(self, n: int, familiar: bool) -> np.ndarray:
        if familiar:
            return (self._centres[[0] * n] + self._draws.normal(0, 0.01, (n, DIMENSIONS))).astype(np.float32)
        new = np.random.default_rng(self._n // 20).normal(size=(1, DIMENSIONS)) * 3  # a new class now and then
        centre = self._centres[[self.chance.randrange(len(self._centres))]] if self.chance.random() < 0.3 else new
        return (centre + self._draws.normal(0, 0.4, (n, DIMENSIONS))).astype(np.float32)


def picture(seed: int) -> bytes:
    """A PNG of 8 x 8 pixels with a comment that makes it longer than what a row holds."""
    draws = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(draws.integers(0, 256, (8, 8), np.uint8)).save(file, "PNG")
    comment = b"tEXtComment\0" + base64.b64encode(draws.bytes(76_000))
    chunk = (len(comment) - 4).to_bytes(4) + comment + zlib.crc32(comment).to_bytes(4)
    head = 8 + 25  # signature and IHDR
    return file.getvalue()[:head] + chunk + file.getvalue()[head:]


class Reviewer(Labeller):
    """Somebody who works through query lists: labels groups, skips them, throws items out, and undoes it."""

    def __init__(self, name: str, key: str, seed: int) -> None:
        super().__init__(name, key, seed)
        self.groups: dict[int, tuple[str, frozenset[int]]] = {}
        """State and thrown-out items of each group that was touched."""

    def choose(self) -> Act | None:
        if self.chance.random() < 0.2 and (undone := self.undo()) is not None:
            return undone
        status, review, _ = self.connection.send("GET", f"{MODEL}/review")
        if status != 200:
            return None
        path = f"{MODEL}/review/{review['number']}/groups?limit=200&members=1000"
        status, found, _ = self.connection.send("GET", path)
        if status != 200 or not found["groups"]:
            return None
        group = self.chance.choice(found["groups"])
        what = self.chance.choice(["label", "label", "labels", "skip", "out"])
        return self._skip(group) if what == "skip" else self._out(group) if what == "out" else self._label(group, what)

    def _put(self, number: int, state: str, out: frozenset[int]) -> None:
        self.groups[number] = (state, out)

    def _label(self, group: dict[str, Any], what: str) -> Act | None:
        number, out = group["number"], frozenset(group["out"])
        left = [it["id"] for it in group["members"] if it["number"] not in out]
        if not left:
            return None
        name = self.chance.choice(NAMES)

        def then(_document: Any) -> None:
            self._put(number, "labelled", out)
            self.remember(len(self.labels) - 1, lambda: self._put(number, group["state"], out))

        said: dict[str, str | None] = dict.fromkeys(left, name)
        if what == "labels":
            return Act(
                "POST", f"{MODEL}/labels", {"labels": [{"group": number, "label": name}]}, labels=said, then=then
            )
        return Act("POST", f"{MODEL}/review/groups/{number}/label", {"label": name}, labels=said, then=then)

    def _skip(self, group: dict[str, Any]) -> Act:
        number, out = group["number"], frozenset(group["out"])

        def then(_document: Any) -> None:
            self._put(number, "skipped", out)
            self.remember(None, lambda: self._put(number, group["state"], out))

        return Act("POST", f"{MODEL}/review/groups/{number}/skip", then=then)

    def _out(self, group: dict[str, Any]) -> Act:
        number, out = group["number"], frozenset(group["out"])
        member = self.chance.choice(group["members"])["number"]

        def then(_document: Any) -> None:
            self._put(number, group["state"], out | {member})
            self.remember(None, lambda: self._put(number, group["state"], out))

        return Act("POST", f"{MODEL}/review/groups/{number}/out", {"item": member}, then=then)


class Admin(Person):
    """Somebody who starts jobs, imports a model, follows each to its end, and goes back to older generations."""

    def __init__(self, name: str, key: str, seed: int, archive: bytes = b"") -> None:
        super().__init__(name, key, seed)
        self.archive = archive
        self.jobs: dict[int, dict[str, Any]] = {}
        """Documents of the jobs that are over."""
        self.following: int | None = None
        self.running = threading.Event()
        """Set while a job runs, as far as is known."""
        self.open = False
        """Whether a generation may have been made that nobody was told of."""
        self.settled = 0
        """Jobs and undos that are over (count)."""

    def choose(self) -> Act | None:
        if self.following is not None:
            return Act("GET", f"/api/v1/jobs/{self.following}", keyed=False, then=self._followed)
        what = self.chance.random()
        if what < 0.25:
            return self._order("review", {})
        if what < 0.65:
            return self._order("updates", {"spread": self.chance.random() < 0.5})
        if what < 0.79 and self.archive:
            self.open = True
            return Act("PUT", f"{MODEL}/archive", self.archive, keyed=False, then=self._ordered, fine=(202,))
        if what < 0.88:
            return self._order("edits", {"what": "relabel", "slots": [0], "label": self.chance.choice(NAMES)})
        return self._undo()

    def _order(self, what: str, body: dict[str, Any]) -> Act:
        self.open = what != "review"
        return Act("POST", f"{MODEL}/{what}", body, keyed=False, then=self._ordered, fine=(202,))

    def _ordered(self, document: dict[str, Any]) -> None:
        self.following = document["id"]
        self.running.set()

    def _followed(self, document: dict[str, Any]) -> None:
        if document["state"] in ("queued", "running"):
            time.sleep(0.01)
            return
        if document["state"] == "failed":
            error = document["error"]
            assert "nothing to learn" in error["detail"] or error["status"] == 503, document
        self.counts[f"jobs {document['state']}"] += 1
        self.settle(document)

    def settle(self, document: dict[str, Any]) -> None:
        """A job is over: its outcome is acknowledged."""
        self.jobs[document["id"]] = document
        if document["state"] == "done":
            self.generation = max(self.generation, document["result"].get("generation", 0))
            self.counts["generations acknowledged"] += document["kind"] != "review"
            self.counts["imports done"] += document["kind"] == "import" and not document["result"].get("same")
        self.following, self.open = None, False
        self.settled += 1
        self.running.clear()

    def _undo(self) -> Act | None:
        status, found, _ = self.connection.send("GET", f"{MODEL}/generations")
        if status != 200 or len(found) < 2:
            return None
        current = found[-1]["content"]
        others = [it["number"] for it in found if it["kept"] and it["content"] != current]
        if not others:
            return None
        self.open = True

        def then(document: dict[str, Any]) -> None:
            self.generation = max(self.generation, document["number"])
            self.counts["generations acknowledged"] += 1
            self.open = False
            self.settled += 1

        body = {"to": self.chance.choice(others[-3:]), "if_needed": True}
        return Act("POST", f"{MODEL}/undo", body, keyed=False, then=then)

    def step(self) -> bool:
        """Try one act; an order that nobody answered is looked for before it is given anew."""
        order = self.pending
        try:
            if order is not None and order.tries and order.fine == (202,) and not self._looked_for():
                return False
        except _GONE:
            return False
        return super().step()

    def _looked_for(self) -> bool:
        """Whether it is known if the order became a job; then it is followed, else the order is given anew."""
        status, found, _ = self.connection.send("GET", "/api/v1/jobs?limit=5")
        if status == 503:
            return False
        assert status == 200, found
        fresh = [it["id"] for it in found if it["id"] not in self.jobs]
        assert len(fresh) <= 1, f"one order became {fresh}"
        self.counts["orders found"] += len(fresh)
        self.counts["orders not found"] += not fresh
        if fresh:
            self.following, self.pending = fresh[0], None
        return True
