"""Writers of one model beside each other: whoever loses plans again, or is told that numbers mean other slots now."""

import time

import numpy as np
import pytest
from support.inbox_rows import items, put_items, put_labels, with_database
from support.service import rows, running

from protocols.commands import main
from protocols.recipes.building import load_model
from protocols.service.jobs import records
from protocols.service.jobs.child.tasks import Task
from protocols.service.jobs.child.work import work
from protocols.service.jobs.outcomes import KEEP
from slots.model.comparison import diff
from slots.model.editing import delete, relabel
from slots.model.slot_model import SlotModel
from slots.storage.generations import log

MODEL = "/api/v1/models/small"


def edited(folder, edit, *arguments):
    """Another generation, by somebody else."""
    model = load_model(folder)
    edit(model, *arguments)
    model.save(folder, keep_history=True)


def order(folder, what, **asked):
    empty = {"slots": [], "labels": [], "label": "", "dry_run": False, "generation": None}
    return Task("edit", folder, "cpu", folder, {"what": what, **empty, **asked}, "1@2.0", "ann")


@pytest.mark.parametrize("what", ["relabel", "delete"])
def test_an_edit_of_another_generations_slots_is_refused(own, what):
    edited(own, delete, [0])  # the slots behind it move up
    before = load_model(own).head.state_dict()
    answered = work(order(own, what, slots=[1], label="teal", generation=0), lambda *_: None)
    assert answered.result is None
    assert answered.error["status"] == 409
    assert "of generation 0, and generation 1 is there now" in answered.error["detail"]
    assert [it.number for it in log(own)] == [0, 1]
    after = load_model(own).head.state_dict()
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.parametrize(
    ("what", "asked", "status"), [("delete", {"slots": [1], "generation": 0}, 409), ("merge", {}, None)]
)
def test_an_edit_that_loses_the_race_is_refused_by_numbers_and_done_by_names(own, what, asked, status):
    faster = iter([lambda: edited(own, relabel, [0], "okapi")])

    def progress(step, _share):
        if step == "saving":
            next(faster, lambda: None)()

    labels = {} if asked else {"labels": ["red"], "label": "crimson"}
    answered = work(order(own, what, **asked, **labels), progress)
    assert next(faster, None) is None
    assert (answered.error or {}).get("status") == status
    names = [load_model(own).class_name(it) for it in load_model(own).head.labels.tolist()]
    assert "okapi" in names
    assert [it.what for it in log(own)] == ["start", "relabel", *(["merge"] if status is None else [])]
    assert ("crimson" in names) == (status is None)


def test_an_edit_names_the_generation_that_its_caller_looked_at(own, tmp_path):
    with running(own, tmp_path / "data") as client:
        edited(own, relabel, [0], "okapi")
        until = time.monotonic() + 30
        while client.get(MODEL).json()["generation"] == 0 and time.monotonic() < until:
            time.sleep(0.05)
        asked = {"what": "relabel", "slots": [0], "label": "zebra"}
        refused = client.post(f"{MODEL}/edits", json={**asked, "generation": 0})
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert "look at the slots again" in refused.json()["detail"]
        begun = client.post(f"{MODEL}/edits", json={**asked, "dry_run": True})
        assert begun.json()["arguments"]["generation"] == 1
        assert client.get("/api/v1/jobs").json()[0]["id"] == begun.json()["id"]
        client.delete(begun.headers["Location"])


def test_what_people_say_while_an_update_runs_waits_for_the_next(own, tmp_path):
    data = tmp_path / "data"
    first, second, third = put_items(data, own, rows(3, 6, classes=4)[0])
    put_labels(data, {first: "white", second: "white", third: "white"})
    with_database(data, lambda it: records.add(it, model="small", kind="update", arguments={}, key_id=None, by="ann"))
    job = with_database(data, lambda it: records.take(it, "small"))
    put_labels(data, {second: "black"})
    put_labels(data, {third: "white"}, by="bob")
    result = with_database(
        data, lambda it: KEEP["update"](it, job, {"generation": 1, "learned": [first, second, third]})
    )
    assert result["learned"] == [first]
    assert [it["state"] for it in items(data).values()] == ["learned", "labelled", "labelled"]


def test_an_update_on_the_command_line_beside_a_service(own, tmp_path, monkeypatch, capsys):
    """It is overtaken by an edit of the service's, plans again, and the service answers with what it made."""
    x, y = rows(200, 12, classes=4)
    names = np.array(["red", "green", "blue", "white"])
    np.savez(tmp_path / "new.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], class_names=names)
    plain = SlotModel.update
    with running(own, tmp_path / "data") as client:

        def overtaken(self, *arguments, **options):
            monkeypatch.setattr(SlotModel, "update", plain)
            begun = client.post(f"{MODEL}/edits", json={"what": "merge", "labels": ["red"], "label": "crimson"})
            until = time.monotonic() + 120
            while client.get(begun.headers["Location"]).json()["state"] != "done":
                assert time.monotonic() < until
                time.sleep(0.05)
            return plain(self, *arguments, **options)

        monkeypatch.setattr(SlotModel, "update", overtaken)
        with pytest.raises(SystemExit, match="0"):
            main(["update", str(own), "--data", str(tmp_path / "new.npz"), "--budget", "3"])
        assert "Another generation was written meanwhile: planning again on it." in capsys.readouterr().err
        assert [it.what for it in log(own)] == ["start", "merge", "update"]
        until = time.monotonic() + 30
        while client.get(MODEL).json()["generation"] != 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        answers = client.post(f"{MODEL}/predict", json={"inputs": x.tolist()}).json()["answers"]
    older, newer = (SlotModel.load(own, generation=it) for it in (1, 2))
    assert diff(older, newer, x).proven
    assert newer.head.n_slots > older.head.n_slots
    assert [it["margin"] for it in answers] == load_model(own).predict(x).margins.tolist()
