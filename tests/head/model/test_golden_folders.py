"""The model folder that each release wrote opens, and answers in both of its generations as that release did.

`tests/support/golden.py` writes one, when a version is about to be released.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.golden import told

import slots
from slots.model.slot_model import SlotModel
from slots.storage.states import SCHEMA

FOLDERS = sorted((Path(__file__).parents[2] / "fixtures" / "releases").iterdir())
FIRST, LAST = 0, 1


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def golden(request):
    return request.param


def test_this_version_has_one_and_so_has_its_format():
    assert slots.__version__ in {path.name for path in FOLDERS}
    schemas = {json.loads((path / "model" / "slots.json").read_text())["schema"] for path in FOLDERS}
    assert schemas == set(range(1, SCHEMA + 1))


def test_it_is_small(golden):
    assert sum(path.stat().st_size for path in golden.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize(("generation", "when"), [(FIRST, "first"), (LAST, "last"), (None, "last")])
def test_it_answers_as_it_did(golden, generation, when):
    model = SlotModel.load(golden / "model", generation=generation)
    with np.load(golden / "answers.npz") as stored:
        expected = {name.removeprefix(f"{when}_"): stored[name] for name in stored.files if name.startswith(when)}
        found = told(model, stored["x"])
    assert found.keys() >= expected.keys()  # a later version may say more
    for name, values in expected.items():
        if values.dtype.kind == "f":  # other processors round products otherwise
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    answers = expected["answer_answers"]
    assert 0 < np.count_nonzero(answers) < len(answers)


def test_it_has_what_a_release_promises_to_keep(golden):
    model = SlotModel.load(golden / "model")
    assert model.class_names == ("red", "green", "blue", "white")
    assert [(it.number, it.what) for it in model.history] == [(LAST, "update")]
    assert model.exemplar_ids is not None
    assert model.novelty is not None


def test_it_can_be_updated_and_undone(golden, tmp_path):
    shutil.copytree(golden / "model", tmp_path / "model")
    model = SlotModel.load(tmp_path / "model")
    with np.load(golden / "answers.npz") as stored:
        x = stored["x"]
    before = model.predict(x)
    model.update(x, {int(np.flatnonzero(~before.matched)[0]): "red"})
    model.save(tmp_path / "model", keep_history=True)
    again = SlotModel.load(tmp_path / "model", generation=LAST)
    np.testing.assert_array_equal(again.predict(x).slots, before.slots)
    after = SlotModel.load(tmp_path / "model").predict(x)
    np.testing.assert_array_equal(after.labels[before.matched], before.labels[before.matched])
