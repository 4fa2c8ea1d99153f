"""A model in huggingface_hub's form: saved, loaded and described on this machine, while every connection is refused."""

import socket

import numpy as np
import pytest
import yaml
from support.service import rows, small_model

from protocols.recipes.building import load_model
from slots import SlotModel, TrainConfig, fit
from slots.errors import UsageError
from slots.storage.generations import Generation

huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install 'neural-slots[hub]'")
from protocols.interfaces import HubModel  # noqa: E402

X, Y = rows(60, 0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*_):
        raise AssertionError("somebody reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture
def model(tmp_path):
    small_model(tmp_path / "small")
    return load_model(tmp_path / "small")


def test_a_model_comes_back_from_a_folder_with_its_card(model, tmp_path):
    held = HubModel(model)
    assert isinstance(held, huggingface_hub.PyTorchModelHubMixin)
    assert held.save_pretrained(tmp_path / "saved") is None
    again = HubModel.from_pretrained(tmp_path / "saved")
    assert np.array_equal(again(X).labels, model.predict(X).labels)
    assert np.array_equal(SlotModel.load(tmp_path / "saved").predict(X).margins, model.predict(X).margins)
    card = huggingface_hub.ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.library_name == "neural-slots"
    assert card.data.pipeline_tag == "tabular-classification"
    assert "pytorch_model_hub_mixin" in card.data.tags
    assert f"{model.head.n_slots} slots" in card.text
    assert "holds features of training examples" in card.text


def test_a_card_has_what_the_fit_measured_and_what_the_user_says(model, tmp_path):
    figures = {"data": "digits", "test_accuracy": 0.97, "test_matched": 0.8, "test_accuracy_matched": None}
    model.history = [Generation(0, "fit", model.head.n_slots, figures)]
    model.class_names = ("a*b", *model.class_names[1:])
    HubModel(model).save_pretrained(tmp_path / "saved", model_card_kwargs={"license": "mit", "language": "en"})
    text = (tmp_path / "saved" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    (entry,) = header["model-index"]
    found = {it["name"]: it["value"] for it in entry["results"][0]["metrics"]}
    assert found == {"Accuracy": 0.97, "Share of answers that a slot matches": 0.8}
    assert header["license"] == "mit"
    assert "a\\*b" in text


def test_a_card_that_is_there_stays_and_a_model_is_replaced(model, tmp_path):
    HubModel(model).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("mine")
    other, _ = fit(X, Y, config=TrainConfig(epochs=1, slots_per_class=1))
    HubModel(other).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == "mine"
    assert HubModel.from_pretrained(tmp_path / "saved").model.head.n_slots == other.head.n_slots


def test_the_local_cache_is_read(model, tmp_path):
    snapshot = tmp_path / "cache" / "models--some--birds" / "snapshots" / ("0" * 40)
    HubModel(model).save_pretrained(snapshot)
    (tmp_path / "cache" / "models--some--birds" / "refs").mkdir()
    (tmp_path / "cache" / "models--some--birds" / "refs" / "main").write_text("0" * 40)
    found = HubModel.from_pretrained("some/birds", cache_dir=tmp_path / "cache")
    assert np.array_equal(found(X).labels, model.predict(X).labels)


def test_nothing_is_downloaded_and_nothing_uploaded(model, tmp_path):
    for name in ("some/other", "no name at all"):
        with pytest.raises(UsageError, match="nothing is downloaded here"):
            HubModel.from_pretrained(name, cache_dir=tmp_path)
    with pytest.raises(UsageError, match="look at the folder"):
        HubModel(model).push_to_hub("some/birds")
    with pytest.raises(UsageError, match="look at the folder"):
        HubModel(model).save_pretrained(tmp_path / "saved", push_to_hub=True)
