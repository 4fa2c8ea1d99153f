"""A model from elsewhere as the next generation: bit for bit, undone by one call, refused if it is anything else."""

import gzip
import hashlib
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from support.archives import members, models, sealed, structures, tar
from support.inbox_rows import items, put_items
from support.service import rows, running, small_model

import slots
from protocols.recipes.building import load_model
from protocols.service.jobs.archives.packing import pack
from protocols.service.jobs.archives.unpacking import unpack
from protocols.service.settings import Keeping, Limits
from slots.errors import DataError, OutdatedError, ServiceError, StorageError, UsageError
from slots.model.slot_model import SlotModel
from slots.storage.generations import log

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"
AT = f"{MODEL}/archive"


@pytest.fixture(scope="module")
def good(small):
    """The archive of the small model."""
    made = pack(small)
    with made.file as file:
        return file.read()


@pytest.fixture(scope="module")
def other(small, tmp_path_factory):
    """A model that learned a fourth class elsewhere, two generations later."""
    folder = tmp_path_factory.mktemp("elsewhere") / "other"
    model = load_model(small, device="cpu")
    x, y = rows(300, 11, classes=4)
    for part in (slice(0, 150), slice(150, 300)):
        model.update(x[part], {int(row): "white" for row in np.flatnonzero(y[part] == 3)})
        model.save(folder, keep_history=True)
    assert model.generation == 2
    return folder


@pytest.fixture(scope="module")
def theirs(other):
    made = pack(other)
    with made.file as file:
        return file.read()


def over(client, started, within=60):
    assert started.status_code == 202, started.text
    until = time.monotonic() + within
    while (found := client.get(started.headers["Location"]).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def test_answers_after_an_import_are_those_of_the_other_service_bit_for_bit(own, other, tmp_path):
    x, _ = rows(500, 3, classes=4)
    with (
        running(other, tmp_path / "there") as there,
        running(own, tmp_path / "here") as here,
        slots.Client(str(there.base_url)) as source,
        slots.Client(str(here.base_url)) as target,
    ):
        file = source.save_archive(tmp_path / "other.tar")
        before, wanted = target.predict(x), source.predict(x)
        assert before.answers != wanted.answers
        planned = target.import_archive(file, dry_run=True).result
        assert (planned["before"], planned["generation"], planned["dry_run"]) == (0, 0, True)
        assert planned["slots"] == load_model(other).head.n_slots == planned["slots_before"] + planned["slots_added"]
        assert (planned["proven"], planned["changed"], planned["archived"]) == (True, 0, 2)
        assert planned["compared"] > 0
        assert target.predict(x) == before
        steps = []
        done = target.import_archive(file, generation=0, progress=lambda step, share: steps.append((step, share)))
        assert done.result == {**planned, "dry_run": False, "generation": 3}
        assert steps[-1][1] == 1
        found = target.predict(x)
        assert (found.generation, found.answers) == (3, wanted.answers)
        assert [(it["number"], it["what"]) for it in target.generations()] == [(0, "start"), (3, "import")]
        assert hashlib.sha256(file.read_bytes()).hexdigest()[:12] in target.generations()[1]["detail"]
        again = target.import_archive(file).result
        assert (again["same"], again["before"], again["generation"]) == (True, 3, 3)
        assert "Generation 3 is the archive." in here.get("/jobs/2").text
        assert "The model has this content already" in here.get("/jobs/3").text
        undone = target.undo()
        assert target.predict(x).answers == before.answers
        assert undone["number"] == 4
        with pytest.raises(StorageError, match="must not be there"):
            source.save_archive(file)
        events = [(it["action"], it["before"], it["after"]) for it in here.get("/api/v1/events").json()]
        assert ("job.done", 0, 3) in events
        assert ("generation.swap", 0, 3) in events
        (order,) = [it["detail"] for it in here.get("/api/v1/events").json() if it["action"] == "job.add"][1:2]
        assert order["arguments"]["sha256"] == done.result["sha256"]
    assert [it.number for it in log(own)] == [0, 3, 4]
    assert list((tmp_path / "here" / "archives").iterdir()) == []
    x, _ = rows(200, 12, classes=4)
    model = load_model(own)
    model.update(x + 5)
    model.save(own, keep_history=True)
    assert model.head.generations.max() == model.generation == 5


def test_what_was_learned_before_and_is_not_in_the_archive_waits_again(own, good, tmp_path):
    data = tmp_path / "data"
    x, y = rows(200, 5, classes=4)
    put_items(data, own, x)
    with running(own, data) as client, slots.Client(str(client.base_url)) as there:
        new = [f"item-{row}" for row in np.flatnonzero(y == 3)[:20]]
        there.labels(dict.fromkeys(new, "white"))
        learned = there.updates().result
        assert (learned["generation"], len(learned["learned"])) == (1, 20)
        kept = there.save_archive(tmp_path / "one.tar")
        assert over(client, client.put(AT, content=good))["result"]["generation"] == 2
        assert {it["state"] for it in items(data).values()} == {"open", "labelled"}
        assert {it["generation"] for it in items(data).values() if it["answer"] == "unmatched"} == {2}
        assert there.import_archive(kept).result["generation"] == 3
    lines = SlotModel.load(own).history
    assert [it.figures.get("goes_on_from") for it in lines] == [None, -1, 1]


def test_a_dry_run_says_which_remembered_examples_would_change(own, good, tmp_path):
    swapped = sealed(members(good), lambda document, _: document["header"]["class_names"].reverse())
    with running(own, tmp_path / "data") as client:
        result = over(client, client.put(AT, content=swapped, params={"dry_run": True}))["result"]
        assert (result["proven"], result["reasons"]) == (False, ["labels have other names"])
        assert result["changed"] == len(result["changes"]) > 0
        assert result["renamed"] == 2
        assert {it["before"] for it in result["changes"]} == {"red", "blue"}
        shown = client.get("/jobs/1").text
        assert "Import on trial" in shown
        assert "It is not proven that matched answers stay: labels have other names." in shown
        assert f"{result['changed']} remembered examples" in shown
        assert client.get(MODEL).json()["generation"] == 0
        found = over(client, client.put(AT, content=good, params={"generation": 7}))
        assert (found["error"]["status"], "generation 0 is there now" in found["error"]["detail"]) == (409, True)


def test_strangers_archives_are_refused_and_nothing_stays(own, good, tmp_path):
    data, before = tmp_path / "data", sorted(os.walk(own))
    hostile = structures(members(good)) + models(members(good))
    assert len(hostile) > 45
    with running(own, data) as client:
        for it in hostile:
            found = over(client, client.put(AT, content=it.body))
            assert found["state"] == "failed", it
            assert found["error"]["status"] == 422, (it, found["error"])
            said = found["error"]["detail"]
            assert it.says in said, (it, said)
            assert str(tmp_path) not in said
            assert "\n" not in said
        assert client.get(MODEL).json()["generation"] == 0
        assert client.get("/api/v1/jobs", params={"limit": 200}).json()[0]["kind"] == "import"
        assert over(client, client.put(AT, content=good))["result"]["same"]
    assert sorted(os.walk(own)) == before
    assert [list((data / it).iterdir()) for it in ("archives", "jobs")] == [[], []]
    assert not (tmp_path.parent / "evil").exists()


def test_bodies_are_bounded_as_they_come_and_as_they_inflate(own, good, tmp_path):
    limits = slots_limits(archive=200_000, requests_per_second=0)
    data = tmp_path / "data"
    zipped = {"Content-Encoding": "gzip"}
    with running(own, data, limits=limits) as client:
        assert len(good) < 200_000
        bomb = gzip.compress(b"\0" * (50 << 20))
        assert len(bomb) < 200_000
        for body, headers, status, says in (
            (b"x" * 200_001, {}, 413, "200000 bytes"),
            ((b"x" * 60_000 for _ in range(5)), {}, 413, "200000 bytes"),
            (bomb, zipped, 413, "200000 bytes"),
            (gzip.compress(good)[:-9], zipped, 400, "ends too early"),
            (gzip.compress(good) + b"x", zipped, 400, "goes on"),
            (b"hello", zipped, 400, "not compressed"),
            (good, {"Content-Encoding": "br"}, 415, "gzip or deflate"),
            (good, {"Repr-Digest": "sha-256=:AAAA:"}, 422, "Repr-Digest"),
        ):
            found = client.put(AT, content=body, headers=headers)
            assert (found.status_code, says in found.json()["detail"]) == (status, True), found.text
        assert client.put("/api/v1/models/none/archive", content=good).status_code == 404
        assert client.get("/api/v1/jobs").json() == []
        assert list((data / "archives").iterdir()) == []
        assert over(client, client.put(AT, content=gzip.compress(good), headers=zipped))["result"]["same"]
        assert over(client, client.put(AT, content=(good[at : at + 999] for at in range(0, len(good), 999))))


def slots_limits(**changes):
    return replace(Limits(), **changes)


def test_a_slow_sender_is_told_and_a_full_disk_is_said(own, good, tmp_path):
    kept = tmp_path / "data" / "archives"
    kept.mkdir(parents=True)

    def slowly():
        """A part of it; the rest only once the service has begun to wait for it and has given up."""
        yield good[:1000]
        for there in (True, False):
            until = time.monotonic() + 60
            while any(kept.iterdir()) != there and time.monotonic() < until:
                time.sleep(0.01)
        yield good[1000:]

    with running(own, tmp_path / "data", limits=slots_limits(request_seconds=1.0)) as client:
        found = client.put(AT, content=slowly())
        assert (found.status_code, "64 KiB must come every 1 seconds" in found.text) == (408, True)
        assert list(kept.iterdir()) == []
    with running(own, tmp_path / "data", keeping=Keeping(free=1 << 60)) as client:
        found = client.put(AT, content=good)
        assert (found.status_code, "must stay free" in found.text) == (507, True)
        assert list((tmp_path / "data" / "archives").iterdir()) == []


def test_an_import_that_waits_is_done_after_a_restart_and_one_that_is_cancelled_leaves_nothing(own, theirs, tmp_path):
    data = tmp_path / "data"
    with running(own, data, warm=False) as client:  # the first one is still being done when the last is cancelled
        first = client.put(AT, content=theirs).headers["Location"]
        second = client.put(AT, content=theirs, params={"dry_run": True})
        third = client.put(AT, content=theirs).headers["Location"]
        cancelled = client.delete(third).json()
        assert cancelled["state"] == "cancelled"
        waiting = second.json()
    (data / "archives" / "0123456789abcdef").write_bytes(b"half of one")
    with running(own, data) as client:
        found = over(client, second)
        assert found["state"] in ("done", "interrupted")
        if waiting["state"] == "queued" and client.get(first).json()["state"] == "interrupted":
            assert found["state"] == "done"
        assert client.get(first).json()["state"] in ("done", "interrupted")
    assert list((data / "archives").iterdir()) == []


def test_errors_of_the_client_are_the_packages_own(own, good, tmp_path):
    with running(own, tmp_path / "data") as client, slots.Client(str(client.base_url), model="small") as there:
        with pytest.raises(UsageError, match="can be read"):
            there.import_archive(tmp_path / "none.tar")
        (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
        with pytest.raises(DataError, match="no tar"):
            there.import_archive(tmp_path / "bad.tar")
        (tmp_path / "good.tar").write_bytes(good)
        with pytest.raises(OutdatedError, match="onto generation 4"):
            there.import_archive(tmp_path / "good.tar", generation=4)
        with pytest.raises(StorageError, match="writable"):
            there.save_archive(tmp_path / "none" / "x.tar")
    with (
        pytest.raises(ServiceError, match="cannot be reached"),
        slots.Client(str(client.base_url), model="small", retries=0) as there,
    ):
        there.import_archive(tmp_path / "good.tar")


def test_a_member_beyond_the_file_is_not_written(tmp_path, good):
    (tmp_path / "cut.tar").write_bytes(good[:3000])
    with pytest.raises(DataError, match="ends within"):
        unpack(tmp_path / "cut.tar", tmp_path / "out")
    (tmp_path / "good.tar").write_bytes(tar(members(good)))
    assert unpack(tmp_path / "good.tar", tmp_path / "good") == len(members(good))
    assert load_model(tmp_path / "good").head.n_slots == small_model(tmp_path / "again").head.n_slots
