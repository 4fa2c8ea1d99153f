"""The routes of the slots: the same numbers as the model itself has, and never those of another generation."""

import math
import shutil

import numpy as np
import pytest
import torch
from support.service import rows, running

import slots
from protocols.service.answering.loaded import Loaded
from slots.errors import OutdatedError

SLOTS = "/api/v1/models/small/slots"


def test_slots_are_those_of_the_model(client, small):
    model = Loaded.load(small, "cpu").model
    head, names = model.head, [model.class_name(it) for it in range(model.n_labels)]
    found = client.get(SLOTS).json()
    assert (found["model"], found["generation"], found["found"]) == ("small", model.generation, head.n_slots)
    assert sorted(it["slot"] for it in found["slots"]) == list(range(head.n_slots))
    for it in found["slots"]:
        slot = it["slot"]
        assert it["label_id"] == int(head.labels[slot])
        assert it["label"] == names[it["label_id"]]
        assert (it["hits"], it["made_by"]) == (int(head.hits[slot]), int(head.generations[slot]))
        assert [it["held_out"], it["held_out_right"]] == head.held_out[slot].tolist()
        assert it["trained"] is bool(head.pooled[slot])
        for name, threshold in (("precision", head.precision_thresholds), ("support", head.support_thresholds)):
            cosine = float(threshold[slot])
            if it[name] is None:
                assert cosine < -1
            else:
                assert math.cos(math.radians(it[name])) == pytest.approx(min(cosine, 1.0), abs=1e-6)


def test_a_filter_and_parts_of_a_list(client, small):
    head = Loaded.load(small, "cpu").model.head
    labels, hits = head.labels.numpy(), head.hits.numpy()
    green = client.get(SLOTS, params={"label": "green", "order": "size", "hits": 1}).json()
    assert sorted(it["slot"] for it in green["slots"]) == np.flatnonzero((labels == 1) & (hits >= 1)).tolist() != []
    sizes = [it["hits"] for it in green["slots"]]
    assert sizes == sorted(sizes, reverse=True)
    assert client.get(SLOTS, params={"label": "no such label"}).json()["found"] == 0
    whole = [it["slot"] for it in client.get(SLOTS).json()["slots"]]
    parts = [client.get(SLOTS, params={"start": at, "limit": 2}).json() for at in range(0, len(whole), 2)]
    assert [it["slot"] for part in parts for it in part["slots"]] == whole
    assert {part["found"] for part in parts} == {len(whole)}


def test_one_slot_names_the_nearest_of_another_label(client, small):
    head = Loaded.load(small, "cpu").model.head
    unit = torch.nn.functional.normalize(head.weights.double(), dim=1).detach().numpy()
    for slot in range(head.n_slots):
        found = client.get(f"{SLOTS}/{slot}").json()
        others = np.flatnonzero(head.labels.numpy() != int(head.labels[slot]))
        angles = [math.acos(min(1.0, max(-1.0, float(unit[slot] @ unit[other])))) for other in others]
        assert found["nearest_foreign_angle"] == pytest.approx(math.degrees(min(angles)), abs=1e-4)
        assert found["nearest_foreign"] == others[int(np.argmin(angles))]
        assert found["generation"] == 0
    missing = client.get(f"{SLOTS}/{head.n_slots}")
    assert (missing.status_code, f"There is no slot {head.n_slots}" in missing.json()["detail"]) == (404, True)


def test_the_numbers_are_never_those_of_another_generation(client):
    assert client.get(SLOTS, params={"generation": 0}).status_code == 200
    for path in (SLOTS, f"{SLOTS}/0"):
        refused = client.get(path, params={"generation": 7})
        assert refused.status_code == 409
        assert "Generation 0 answers now, not 7" in refused.json()["detail"]


def test_the_slots_that_answered_of_late_come_first(small, tmp_path):
    shutil.copytree(small, tmp_path / "small")
    x, _ = rows(40, 3)
    told = Loaded.load(small, "cpu").model.predict(x)
    fired = np.bincount(told.slots[told.matched])
    with running(tmp_path / "small", tmp_path / "data") as client, slots.Client(str(client.base_url)) as there:
        there.predict(x)
        found = list(there.slots(order="lately"))
        assert found[0].lately == max(it.lately for it in found) >= fired.max()
        assert {it.generation for it in found} == {0}
        assert {it.slot for it in there.slots(label="red")} == {it.slot for it in found if it.label == "red"}


def test_a_walk_through_the_slots_ends_where_another_generation_answers(monkeypatch):
    class Changing:
        """A service whose generation changes between two parts of a list."""

        def ask(self, _method, path, query=None, **_more):
            if query["start"]:
                raise OutdatedError("Generation 1 answers now, not 0; numbers of slots may differ. Ask again.")
            row = {"slot": 0, "label": "a", "label_id": 0, "made_by": 0, "precision": 1.0, "support": None, "hits": 3}
            return {"generation": 0, "found": 2, "slots": [row | {"held_out": 1, "held_out_right": 1, "lately": 0}]}

    there = slots.Client(model="small")
    monkeypatch.setattr(there, "_transport", Changing())
    walk = there.slots()
    assert next(walk).hits == 3
    with pytest.raises(OutdatedError, match="Ask again"):
        next(walk)
