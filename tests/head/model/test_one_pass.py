"""Each input goes through the backbone once; features that are kept are the right ones; one pass says what two did."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nets import TinyNet, strokes
from support.small_models import three_animals
from torch import nn

from slots.errors import DataError, UsageError
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.features.views import parse_views
from slots.progress import part, silent
from slots.training.config import TrainConfig
from slots.training.fitting import fit
from slots.update.config import UpdateConfig
from slots.update.inquiry import Inquiry
from slots.update.self_training import SpreadConfig

QUICK = UpdateConfig(epochs=2)
SPREAD = UpdateConfig(epochs=2, spread=SpreadConfig())


@pytest.fixture(scope="module")
def fitted():
    """A network with two views that learned two kinds of strokes."""
    torch.manual_seed(0)
    x, y = strokes(240)
    config = TrainConfig(epochs=2, batch_size=40, slots_per_class=3, views="flip", held_out=0.25)
    return fit(x, y, backbone=TinyNet(width=12), config=config)[0]


@pytest.fixture
def model(fitted):
    return copy.deepcopy(fitted)


@pytest.fixture
def passes(model):
    """Rows that went through the model's backbone, call by call."""
    seen = []
    model.backbone.register_forward_hook(lambda _net, inputs, _output: seen.append(len(inputs[0])))
    return seen


@pytest.fixture(scope="module")
def new():
    """Known strokes, and crosses that nothing matches."""
    x, y = strokes(90, seed=3)
    crosses = np.maximum(x[:60], x[:60].transpose(0, 2, 1))
    return np.concatenate([x, 255 - crosses]), np.concatenate([y, np.full(60, 2)])


def once(x):
    return 2 * len(x)  # two views


def test_a_proposal_is_one_pass_and_the_update_with_it_adds_none(model, passes, new):
    x, y = new
    proposal = model.propose(x, budget=6)
    assert 20 < len(proposal.unmatched) < len(x)
    assert sum(passes) == once(x)
    done = model.update(x, {int(i): int(y[i]) for i in proposal.queries}, proposal=proposal, config=QUICK)
    assert done.slots_added > 0
    assert sum(passes) == once(x)
    assert done.proposal.source is None, "a report holds no features"


@pytest.mark.parametrize("config", [QUICK, SPREAD], ids=["seeded", "spread"])
def test_an_update_from_scratch_is_one_pass(model, passes, new, config):
    x, y = new
    assert model.update(x, np.where(np.arange(len(x)) % 5 == 0, y, -1), config=config).slots_added > 0
    assert sum(passes) == once(x)


def test_an_update_to_clusters_is_one_pass(model, passes, new):
    assert model.update(new[0], config=QUICK).clusters_added > 0
    assert sum(passes) == once(new[0])


def test_an_inquiry_is_one_pass_and_the_update_with_it_adds_none(model, passes, new):
    x, y = new
    inquiry = Inquiry(model, x)
    for _ in range(2):
        inquiry.tell({int(row): int(y[row]) for row in inquiry.ask(10)})
    assert sum(passes) == once(x)
    assert model.update(x, inquiry.given, proposal=inquiry.proposal, pool=inquiry.pool, config=SPREAD).slots_added
    assert sum(passes) == once(x)


def test_a_proposal_of_other_inputs_or_another_backbone_lends_no_features(model, passes, new):
    x, y = new
    labels = {int(i): int(y[i]) for i in range(90, 150, 10)}
    proposal = model.propose(x)
    states = []
    for rows, lent in ((x, proposal), (x.copy(), proposal), (x, replace(proposal, source=None))):
        updated, before = copy.deepcopy(model), sum(passes)
        updated.update(rows, labels, proposal=lent, config=QUICK)
        states.append([value.numpy().tobytes() for value in updated.state_dict().values()])
        assert sum(passes) > before, "a copy of the model has a backbone of its own"
    assert states[0] == states[1] == states[2]


def test_what_does_not_fit_in_memory_takes_more_passes_and_gives_the_same(monkeypatch, model, passes, new):
    x, y = new
    labels, twin = {int(i): int(y[i]) for i in range(90, 150, 10)}, copy.deepcopy(model)
    model.update(x, labels, config=QUICK)
    whole = sum(passes)
    monkeypatch.setattr("slots.features.source.KEPT_BYTES", 0)
    twin.update(x, labels, config=QUICK)
    assert sum(passes) > 2 * whole
    torch.testing.assert_close(model.head.weights, twin.head.weights, rtol=0, atol=1e-4)
    assert torch.equal(model.head.labels, twin.head.labels)


def test_where_only_the_unmatched_fit_they_are_kept(monkeypatch, model, passes, new):
    x = new[0]
    fresh = int((~model.predict(x).matched).sum())
    passes.clear()
    monkeypatch.setattr("slots.features.source.KEPT_BYTES", (len(x) - 1) * 2 * 12 * 4)
    Inquiry(model, x)
    matched = len(x) - fresh
    assert sum(passes) == 2 * (len(x) + fresh + matched), "all to predict, the unmatched to keep, the rest as anchors"


@pytest.mark.parametrize("learns", [False, True])
def test_the_closing_pass_asks_a_network_once(learns):
    torch.manual_seed(0)
    (x, y), seen = strokes(160), []
    net = TinyNet(width=8).requires_grad_(learns)
    config = TrainConfig(epochs=2, batch_size=40, slots_per_class=2, views="flip", held_out=0.25)
    net.register_forward_hook(lambda net, inputs, _output: seen.append((net.training, len(inputs[0]))))
    fit(x, y, backbone=net, config=config)
    assert sum(n for training, n in seen if not training) == once(x) + 1, "one to learn the number of features"
    assert any(training for training, _ in seen) == learns


def test_an_assessment_and_an_examination_are_one_pass_each(model, passes, new):
    x = new[0]
    for ask in (model.assess_novelty, model.examine, model.predict):
        passes.clear()
        ask(x)
        assert sum(passes) == once(x)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_an_examination_is_prediction_and_novelty_to_the_bit(monkeypatch, model, new, rate):
    for floats in (1 << 24, 4000):  # one block, and many
        monkeypatch.setattr("slots.features.featurizer._BLOCK_FLOATS", floats)
        found = model.examine(new[0], false_alarm_rate=rate)
        apart = model.predict(new[0]), model.assess_novelty(new[0], false_alarm_rate=rate)
        for one, two in zip((found.prediction, found.novelty), apart, strict=True):
            for name, values in vars(two).items():
                assert getattr(one, name).tobytes() == values.tobytes(), name
    assert len(model.examine(new[0][:0]).novelty) == len(model.examine(new[0][:0]).prediction) == 0


def test_messages_of_an_examination(model):
    with pytest.raises(DataError, match="`x` must be uint8 images"):
        model.examine(np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(UsageError, match="must have held-out scores to judge novelty by"):
        three_animals().examine(np.zeros((2, 8), np.float32))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 12), st.booleans())
def test_a_source_gives_the_features_of_any_rows_and_computes_each_once(data, n, keep):
    rows = np.random.default_rng(n).integers(0, 255, (n, 2, 2)).astype(np.uint8)
    seen = []

    class Watched(nn.Flatten):
        def forward(self, x):
            seen.extend(x.flatten(1).round(decimals=6).tolist())
            return super().forward(x)

    featurizer = Featurizer(Preprocessing("images", (1, 2, 2)), parse_views("none"), Watched(), feature_dim=4)
    source, literal = FeatureSource(featurizer, rows, keep=keep), rows.reshape(n, 1, 4) / np.float32(255)
    asked = data.draw(st.lists(st.lists(st.integers(0, n - 1), min_size=1, max_size=6), max_size=5))
    for ids in asked:
        np.testing.assert_allclose(source(np.array(ids)).numpy(), literal[ids], rtol=1e-6)
        few = source.take(np.array(ids))
        places = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=4))
        np.testing.assert_allclose(few(np.array(places)).numpy(), literal[ids][places], rtol=1e-6)
        again = few.take(np.array(places))
        np.testing.assert_allclose(again(slice(0, len(places))).numpy(), literal[ids][places], rtol=1e-6)
    np.testing.assert_allclose(source.fill(silent)(slice(None)).numpy(), literal, rtol=1e-6)
    assert source.keeps == keep
    assert not keep or len(seen) == n


def test_a_part_of_the_progress_is_told_as_progress_of_the_whole():
    told = []
    half = part(lambda step, share: told.append((step, share)), 0.25, 0.75)
    for share in (0.0, 0.5, 1.0):
        half("work", share)
    assert told == [("work", 0.25), ("work", 0.5), ("work", 0.75)]
