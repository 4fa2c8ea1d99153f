"""A model folder written by an earlier version opens, and answers, proposes and learns as it did then.

`tests/fixtures/old_model` is a fit on digits 0 and 1; `old_model_answers.npz` is what the version that wrote it said of
sixty digits 0 to 2, and what it learned of them.
"""

from pathlib import Path

import numpy as np
import pytest

import backbones
from slots.model.slot_model import SlotModel

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def model():
    return SlotModel.load(FIXTURES / "old_model", build=backbones.build)


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "old_model_answers.npz") as stored:
        return dict(stored)


def assert_same(found, expected, kind, *, rtol):
    """Whole numbers, words and flags are the same; floats too, up to how other processors round products."""
    for name, values in vars(found).items():
        stored = expected[f"{kind}_{name}"]
        if stored.dtype.kind == "f":
            np.testing.assert_allclose(values, stored, rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(values, stored, err_msg=name)


def test_it_is_the_model_that_was_written(model):
    assert (model.head.n_slots, model.class_names, model.views.n_views) == (5, ("zero", "one"), 2)
    assert (model.generation, model.history[0].what) == (0, "fit")
    assert model.exemplar_features.shape == (5, 4, 64)
    assert model.thumbnails.shape == (5, 4, 8, 8, 1)
    assert {name.split(".")[0] for name in model.state_dict()} == {"head"}, "pixels have no weights"


def test_it_answers_as_it_did(model, expected):
    found = model.examine(expected["x"])
    assert_same(found.prediction, expected, "before", rtol=1e-6)
    assert_same(found.novelty, expected, "novelty", rtol=1e-4)
    assert 0 < expected["before_answers"].astype(bool).mean() < 1


def test_it_proposes_and_learns_as_it_did(model, expected):
    x, names = expected["x"], ("zero", "one", "two")
    proposal = model.propose(x, budget=4)
    for name in ("unmatched", "queries", "gains", "bound"):
        np.testing.assert_array_equal(getattr(proposal, name), expected[f"proposal_{name}"])
    assert proposal.radius == pytest.approx(float(expected["proposal_radius"]), rel=1e-9)
    done = model.update(x, {int(i): names[expected["y"][i]] for i in proposal.queries}, proposal=proposal)
    np.testing.assert_array_equal(done.slots, expected["update_slots"])
    np.testing.assert_array_equal(done.sources, expected["update_sources"])
    assert_same(model.predict(x), expected, "after", rtol=1e-3)


def test_it_is_written_again_as_it_was(model, tmp_path):
    model.save(tmp_path / "again")
    twin = SlotModel.load(tmp_path / "again", build=backbones.build)
    for one, two in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert one[0] == two[0]
        assert one[1].numpy().tobytes() == two[1].numpy().tobytes()
    (new,), (old,) = ((path / "states").glob("*") for path in (tmp_path / "again", FIXTURES / "old_model"))
    assert {path.name for path in new.iterdir()} == {path.name for path in old.iterdir()}
    for path in old.glob("*.safetensors"):
        assert path.read_bytes() == (new / path.name).read_bytes(), path.name
