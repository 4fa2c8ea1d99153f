"""`slots.Client` against a real service: its calls, its errors, and what it does when answers are lost."""

import doctest
import io
import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.service import rows, running

import slots
from protocols.recipes.building import load_model
from protocols.service.settings import Limits
from slots.client.inputs import as_inputs, in_requests, in_turns
from slots.client.service_client import Client
from slots.errors import DataError, OutdatedError, ServiceError, UsageError


@pytest.fixture(scope="module")
def there(client):
    with slots.Client(str(client.base_url)) as found:
        yield found


def test_the_example_of_the_docstring_is_true(own, tmp_path):
    x, y = rows(160, 5, classes=4)
    x = x[np.argsort(y != 0, kind="stable")]  # a red one first
    with running(own, tmp_path / "data") as client:
        text = Client.__doc__.replace("http://127.0.0.1:8080", str(client.base_url))
        text = text.replace("# doctest: +SKIP", "")
        example = doctest.DocTestParser().get_doctest(text, {"slots": slots, "x": x}, "Client", None, 0)
        assert len(example.examples) == 11
        said = io.StringIO()
        found = doctest.DocTestRunner().run(example, out=said.write, clear_globs=False)
        example.globs["client"].close()
    assert found.failed == 0, said.getvalue()


def test_answers_are_the_models_own(there, small):
    x, _ = rows(40, 1, classes=4)
    model = load_model(small)
    told = model.examine(x, false_alarm_rate=0.2)
    assert there.health()
    assert there.model == "small"
    for given in (x, torch.from_numpy(x), x.tolist()):
        found = there.predict(given, false_alarm_rate=0.2)
        assert found.labels == [model.class_name(it) for it in told.prediction.labels]
        assert found.matched == told.prediction.matched.tolist()
        assert [it.margin for it in found.answers] == told.prediction.margins.tolist()
        assert [it.novel for it in found.answers] == told.novelty.novel.tolist()
    novelty = there.novelty(x)
    assert [it.p_value for it in novelty] == told.novelty.p_values.tolist()
    assert {it.reason for it in novelty} <= set(map(str, told.novelty.reasons))


def test_items_are_stored_once_and_read_again(own, tmp_path):
    x, _ = rows(30, 8, classes=4)
    ids = [f"ä/{number}" for number in range(30)]
    with running(own, tmp_path / "data") as client, slots.Client(str(client.base_url), model="small") as there:
        assert [it.fate for it in there.items(x, ids=ids, store="all")] == ["stored"] * 30
        assert [it.fate for it in there.items(x, ids=ids, store="all")] == ["there"] * 30
        found = there.stored()
        assert [it.id for it in found] == ids
        assert [it.id for it in there.stored(limit=7)] == ids[:7]
        unmatched = [it.id for it in found if it.answer == "unmatched"]
        assert [it.id for it in there.stored(answer="unmatched")] == unmatched != []
        assert there.labels({ids[0]: "red", ids[1]: "blue"}) == 2
        assert [it.id for it in there.stored(state="labelled")] == ids[:2]
        assert there.labels({ids[0]: None}) == 1
        assert [it.id for it in there.stored(state="labelled")] == ids[1:2]
        with pytest.raises(OutdatedError, match="content"):
            there.items(x[:1] + 1, ids=ids[:1], store="all")
        with pytest.raises(UsageError, match="nobody"):
            there.labels({"nobody": "red"})
        assert [it["number"] for it in there.generations()] == [0]
        with pytest.raises(UsageError, match=r"nothing|before"):
            there.undo()
        told = []
        assert there.updates(dry_run=True, progress=lambda *it: told.append(it)).state == "done"
        assert told[-1][1] == 1


def test_a_stream_of_items_has_receipts_in_its_order(own, tmp_path):
    x, _ = rows(150, 9, classes=4)
    told = load_model(own).examine(x)

    def items():
        for place, row in enumerate(x):
            yield (f"item/{place}", row) if place % 2 else row.tolist()
            if place == 70:
                yield [1.0, 2.0]

    with running(own, tmp_path / "data") as client, slots.Client(str(client.base_url), model="small") as there:
        found = list(there.stream(items(), store="all"))
        assert [it.place for it in found] == list(range(151))
        bad = found.pop(71)
        assert (bad.fate, bad.answer, bad.generation) == ("refused", None, None)
        assert "shape" in bad.problem
        assert [it.answer.margin for it in found] == told.prediction.margins.tolist()
        assert [it.answer.p_value for it in found] == told.novelty.p_values.tolist()
        assert {(it.fate, it.generation, it.problem) for it in found} == {("stored", 0, None)}
        assert [it.id for it in found[1::2]] == [f"item/{place}" for place in range(1, 150, 2)]
        assert len(there.stored()) == 150
        with pytest.raises(UsageError, match="unmatched, ambiguous"):
            next(there.stream([x[0]], store="seen:all"))


def test_items_of_a_stream_whose_receipts_were_lost_are_sent_again(own, tmp_path):
    x, _ = rows(100, 9, classes=4)
    with running(own, tmp_path / "data") as client:
        relay = Relay(client.base_url.port, lost=1)
        with slots.Client(relay.address, model="small") as there:
            fates = [it.fate for it in there.stream(((f"a{place}", row) for place, row in enumerate(x)), store="all")]
        assert fates == ["there"] * 64 + ["stored"] * 36
        assert relay.requests == 3
        relay.close()
        relay = Relay(client.base_url.port, lost=9)
        with (
            slots.Client(relay.address, model="small", retries=1) as there,
            pytest.raises(ServiceError, match="0 of 1 lines"),
        ):
            list(there.stream(x[:1]))
        relay.close()


def test_requests_of_a_stream_are_bounded():
    short = [b"a\n"] * 130
    assert [len(it) for it in in_turns(short)] == [64, 64, 2]
    long = [b"a" * 600_000, b"b" * 600_000, b"c" * 2_000_000, b"d"]
    assert [len(it) for it in in_turns(long)] == [1, 1, 1, 1]
    assert list(in_turns([])) == []


def test_inputs_of_a_request_are_bounded():
    assert [len(it) for it in in_requests([""] * 130)] == [64, 64, 2]
    assert [len(it) for it in in_requests([[0.0] * 6] * 2500)] == [1024, 1024, 452]
    assert [len(it) for it in in_requests([[0.0] * 300_000] * 3)] == [1, 1, 1]
    assert [len(it) for it in in_requests(["a" * 3_000_000, "b" * 1_000_000, "c" * 5_000_000, "d"])] == [2, 1, 1]
    wide = np.random.default_rng(0).normal(size=(700, 784)).tolist()
    for inputs in (wide, ["\N{SNOWMAN}" * 100_000] * 40, ["a" * 300_000] * 64):
        parts = list(in_requests(inputs))
        assert [it for part in parts for it in part] == inputs
        assert len(parts) > 1
        assert max(len(json.dumps({"inputs": part})) for part in parts) < Limits().body
    assert list(in_requests([])) == [[]]


def test_many_inputs_are_answered_as_few_are(there, small):
    x, _ = rows(2500, 6, classes=4)
    found = there.predict(x)
    model = load_model(small)
    assert found.labels == [model.class_name(it) for it in model.predict(x).labels]
    assert found.matched == model.predict(x).matched.tolist()


@pytest.mark.parametrize(
    ("answered_by", "given"),
    [([3, 3, 3], 3), ([3, 4, 4, 4], 4), ([3, 3, 4, 4, 4], 4), ([3, 4, 4, 5], None), ([3, 3, 4, 4, 5], None)],
)
def test_one_generation_answers_all(monkeypatch, answered_by, given):
    """An update between two requests: what came before it is asked again, once."""
    asked = []

    def ask(_method, _path, *, body, **_more):
        asked.append(len(body["inputs"]))
        number = answered_by[len(asked) - 1]
        novelty = {"p_value": None, "novel": None, "score": None, "reason": None}
        answer = {"label": "red", "label_id": 0, "answer": "matched", "slot": 0, "margin": 0.1, "novelty": novelty}
        return {"model": "m", "generation": number, "answers": [answer] * len(body["inputs"])}

    with slots.Client("http://127.0.0.1:1", model="m") as client:
        monkeypatch.setattr(client, "_ask", ask)
        if given is None:
            with pytest.raises(OutdatedError, match="Ask again"):
                client.predict(np.ones((2500, 6)))
        else:
            found = client.predict(np.ones((2500, 6)))
            assert (found.generation, len(found.answers)) == (given, 2500)
    assert len(asked) == len(answered_by)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda it: it.predict([[1.0, 2.0]]), DataError, "shape"),
        (lambda it: it.predict([]), DataError, "at least 1"),
        (lambda it: it.items(np.ones((5000, 6))), DataError, "4096"),
        (lambda it: it.predict(["text"]), DataError, "rows of 6"),
        (lambda it: it.predict([[1.0] * 6], false_alarm_rate=2), DataError, "rate"),
        (lambda it: it.predict("text"), DataError, "list"),
        (lambda it: it.predict([object()]), DataError, "rows of numbers"),
    ],
)
def test_errors_are_the_packages_own(there, call, error, says):
    with pytest.raises(error, match=says):
        call(there)


def test_a_model_that_is_not_there(client):
    with (
        slots.Client(str(client.base_url), model="no such/model") as there,
        pytest.raises(UsageError, match="Not Found"),
    ):
        there.predict([[1.0] * 6])
    with slots.Client(str(client.base_url), model="none") as there, pytest.raises(UsageError, match="no model 'none'"):
        there.predict([[1.0] * 6])


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with slots.Client(address, model="small", retries=1) as there:
        assert not there.health()
        with pytest.raises(ServiceError, match="slots serve"):
            there.predict([[1.0] * 6])
    with pytest.raises(UsageError, match="http://"):
        slots.Client("127.0.0.1:8080")


class Relay:
    """A wire to a service that loses answers: after the request was passed on, the first ``lost`` connections break."""

    def __init__(self, port, lost):
        self._port, self._left = port, lost
        self.requests = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near):
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            while given := self._message(near):
                self.requests += 1
                far.sendall(given)
                answer = self._message(far)
                if self._left:
                    self._left -= 1
                    return
                near.sendall(answer)

    @staticmethod
    def _message(near):
        given = b""
        while b"\r\n\r\n" not in given:
            part = near.recv(1 << 16)
            if not part:
                return b""
            given += part
        head, _, body = given.partition(b"\r\n\r\n")
        sizes = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        chunked = b"transfer-encoding: chunked" in head.lower()
        while (not body.endswith(b"0\r\n\r\n")) if chunked else len(body) < int(sizes[0] if sizes else 0):
            part = near.recv(1 << 16)
            given, body = given + part, body + part
        return given

    def close(self):
        self._listening.close()


def test_requests_whose_answers_were_lost_are_done_once(own, tmp_path):
    x, _ = rows(5, 8, classes=4)
    with running(own, tmp_path / "data") as client:
        relay = Relay(client.base_url.port, lost=2)
        with slots.Client(relay.address, model="small") as there:
            assert [it.fate for it in there.items(x, store="all")] == ["stored"] * 5  # the first answer, kept
            assert relay.requests == 3
        relay.close()
        (first, *_) = client.get("/api/v1/models/small/items").json()["items"]
        relay = Relay(client.base_url.port, lost=1)
        with slots.Client(relay.address, model="small") as there:
            assert there.labels({first["id"]: "red"}) == 1
            assert relay.requests == 2
        relay.close()
        assert len(client.get("/api/v1/models/small/labels").json()["labels"]) == 1
        relay = Relay(client.base_url.port, lost=1)
        with slots.Client(relay.address, model="small") as there, pytest.raises(ServiceError, match="reached"):
            there.updates()  # it may have begun, and would begin twice
        assert relay.requests == 1
        relay.close()


def test_images_go_as_files(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    for given in (x, x[..., :1], x[..., 0]):
        found = [np.asarray(Image.open(io.BytesIO(_decoded(it)))) for it in as_inputs(given)]
        assert np.array_equal(found, given[..., 0] if given.shape[-1] == 1 else given)
    file = tmp_path / "a.png"
    Image.fromarray(x[0]).save(file)
    assert as_inputs([file]) == as_inputs([file.read_bytes()])
    assert Path(file).read_bytes() == _decoded(as_inputs([file])[0])


def _decoded(text):
    import base64

    return base64.b64decode(text)
