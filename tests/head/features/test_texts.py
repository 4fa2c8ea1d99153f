"""Texts through fit, predict, save, load and update, with a small encoder of words instead of a network."""

import numpy as np
import pytest
import torch
from torch import nn

import slots
from slots.errors import DataError, ModelError, UsageError
from slots.features.exemplars import EXCERPT, thumbnails
from slots.features.preprocessing import Preprocessing, raw_inputs

TOPICS = {"bank": "balance account money transfer", "weather": "rain sun wind snow", "music": "song play album loud"}


class Words(nn.Module):
    """Counts of words: a backbone that a person can follow."""

    name, options, input_shape = "words", {}, ()
    words = tuple(" ".join(TOPICS.values()).split())

    def forward(self, x):
        rows = [[text.split().count(word) for word in self.words] for text in x]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(x), len(self.words))


def sentences(n, seed=0, topics=tuple(TOPICS)):
    rng = np.random.default_rng(seed)
    labels = [topics[i % len(topics)] for i in range(n)]
    texts = [" ".join([*rng.choice(TOPICS[label].split(), 3), 'say "a, b"\n<i>é</i>']) for label in labels]
    return texts, labels


@pytest.fixture(scope="module")
def fitted():
    texts, labels = sentences(300)
    config = slots.TrainConfig(epochs=3, slots_per_class=4)
    return slots.fit(texts, labels, backbone=Words(), config=config)[0]


def test_names_become_classes_and_lists_are_answered(fitted):
    assert fitted.class_names == ("bank", "music", "weather")
    assert fitted.preprocessing == Preprocessing("text", ())
    texts, labels = sentences(60, seed=1)
    answers = fitted.predict(texts)
    names = [fitted.class_name(label) for label in answers.labels]
    assert np.mean([a == b for a, b in zip(names, labels, strict=True)]) > 0.9
    assert fitted.predict(np.array(texts)).labels.tolist() == answers.labels.tolist()
    assert fitted.predict(tuple(texts[:1])).margins[0] == answers.margins[0]
    assert len(fitted.predict(np.array([], object))) == 0


def test_texts_are_whitened_as_their_features_are():
    (texts, labels), (new, _) = sentences(300), sentences(60, seed=1)
    config = slots.TrainConfig(epochs=3, slots_per_class=2, whitening=0.3)
    of_texts, _ = slots.fit(texts, labels, backbone=Words(), config=config)
    of_rows, _ = slots.fit(Words()(texts), labels, config=config)
    answers, wanted = of_texts.predict(new), of_rows.predict(Words()(new))
    assert np.array_equal(answers.labels, wanted.labels)
    np.testing.assert_allclose(answers.margins, wanted.margins, atol=1e-5)


def test_slots_remember_texts(fitted):
    assert fitted.thumbnails.shape == tuple(fitted.head.exemplars.shape)
    texts, labels = sentences(300)
    for slot, remembered in enumerate(fitted.thumbnails):
        ids = fitted.head.exemplars[slot].tolist()
        assert remembered.tolist() == [texts[i] if i >= 0 else "" for i in ids]
        assert fitted.class_name(int(fitted.head.labels[slot])) == labels[ids[0]]


def test_a_model_folder_keeps_them(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = slots.SlotModel.load(tmp_path / "m", build=lambda name, **options: Words())
    assert np.array_equal(loaded.thumbnails, fitted.thumbnails)
    texts, _ = sentences(40, seed=2)
    assert np.array_equal(loaded.predict(texts).margins, fitted.predict(texts).margins)
    with pytest.raises(ModelError, match="has the backbone 'words'"):
        slots.SlotModel.load(tmp_path / "m")


def test_an_update_from_texts_adds_slots_and_changes_no_matched_answer():
    texts, labels = sentences(400, topics=("bank", "weather"))
    config = slots.TrainConfig(epochs=3, slots_per_class=4, held_out=0.2, closing=slots.ClosingConfig(reach=0.9))
    model, _ = slots.fit(texts, labels, backbone=Words(), config=config)
    new, truth = sentences(120, seed=3)
    before = model.predict(new)
    proposal = model.propose(new, budget=6)
    assert len(proposal.queries)
    report = model.update(new, {int(i): truth[i] for i in proposal.queries}, proposal=proposal)
    after = model.predict(new)
    assert report.slots_added > 0
    assert len(model.thumbnails) == model.head.n_slots
    assert any(
        "song" in text or "play" in text or "album" in text for text in model.thumbnails[-report.slots_added :, 0]
    )
    assert np.array_equal(after.labels[before.matched], before.labels[before.matched])
    assert "music" in {model.class_name(int(label)) for label in after.labels}
    assert model.assess_novelty(new, calibration=texts[:100]).p_values.shape == (120,)


def test_long_texts_are_cut_for_display_alone():
    x = raw_inputs(["a" * 1000, "b" * EXCERPT])
    kept = thumbnails(x, np.array([[0, 1, -1]]))
    assert kept.tolist() == [["a" * (EXCERPT - 1) + "…", "b" * EXCERPT, ""]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("one text", "`x` must be a list of texts, got one text 'one text'"),
        (np.array(["a", None], dtype=object), "`x` must hold strings, got None in row 1"),
        (["a", "half \ud83d"], "`x` must hold whole characters, got half of one in row 1"),
        (np.zeros((2, 3), np.float32), r"`x` must be a list of texts, got float32 of shape \(2, 3\)"),
    ],
)
def test_what_is_no_text(fitted, x, message):
    with pytest.raises(DataError, match=message):
        fitted.predict(x)


def test_text_needs_a_backbone_and_its_own_kind(fitted):
    with pytest.raises(
        UsageError, match=r"`backbone` must be given for text, got none\. Pass backbones.build\('text:NAME'\)"
    ):
        slots.fit(["a", "b"], [0, 1])
    with pytest.raises(DataError, match="`y` must hold names of `class_names`, got 'c'"):
        slots.fit(["a", "b"], ["a", "c"], class_names=("a", "b"), backbone=Words())
    model, _ = slots.fit(np.eye(4, dtype=np.float32), ["x", "y", "x", "y"], config=slots.TrainConfig(epochs=1))
    assert model.class_names == ("x", "y")
    with pytest.raises(DataError, match=r"float features of shape \(example, 4\), got object"):
        model.predict(["a text"])
