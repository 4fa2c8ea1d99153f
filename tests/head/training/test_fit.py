"""Head, closing pass, training and model: what a fit promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.nets import TinyNet, blobs, build_tiny, same_state, strokes
from torch import nn

from backbones.explanations import stabilize
from slots.closing.caps import slack_for
from slots.closing.config import ClosingConfig
from slots.errors import DataError, EmptyHeadError, ModelError, UsageError
from slots.head.exact_thresholds import PrecisionAccumulator, precision_thresholds_over
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.head.thresholds import precision_thresholds
from slots.model.slot_model import SlotModel
from slots.training.config import TrainConfig
from slots.training.fitting import fit, hold_out
from slots.training.loop import columns

QUICK = TrainConfig(epochs=4, batch_size=64, slots_per_class=3)
FULL = ClosingConfig(mode="full")


def head_with(weights, labels):
    head = IncrementalNeuralHashing(weights.shape[1])
    head.add_slots(weights, labels)
    return head


# --- the head


def test_forward_is_the_scaled_pool_of_the_best_view():
    torch.manual_seed(1)
    head = head_with(torch.randn(5, 4), torch.tensor([3, 0, 3, 7, 0]))
    x = torch.randn(6, 2, 4)
    scores = torch.einsum("nvf,kf->nvk", normalize(x), head.weights.detach()).amax(1)
    assert head.classes.tolist() == [0, 3, 7]
    for column, members in enumerate([[1, 4], [0, 2], [3]]):
        attention = (head.beta * scores[:, members]).softmax(1)
        expected = head.scale * (attention * scores[:, members]).sum(1)
        assert torch.allclose(head(x)[:, column], expected, atol=1e-4)
    assert torch.equal(columns(head.classes, torch.tensor([7, 0])), torch.tensor([2, 0]))


def test_gradients_reach_features_and_slots_also_in_half_precision():
    head = head_with(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
    net = nn.Sequential(nn.Linear(5, 3), head)
    with torch.autocast("cpu", torch.bfloat16):
        nn.functional.cross_entropy(net(torch.randn(8, 5)), torch.arange(8) % 2).backward()
    assert head.weights.grad.abs().sum() > 0
    assert net[0].weight.grad.abs().sum() > 0
    assert torch.isfinite(head.weights.grad).all()


@pytest.mark.parametrize("has_instructions", [False, True])
def test_autocast_takes_what_the_processor_multiplies(has_instructions, monkeypatch):
    monkeypatch.setattr("slots.training.loop.multiplies_bfloat16", lambda device: has_instructions)
    seen = set()

    class Watched(TinyNet):
        def forward(self, x):
            found = super().forward(x)
            seen.add(found.dtype)
            return found

    x, y = strokes()
    model, _ = fit(x, y, backbone=Watched(), config=replace(QUICK, epochs=1, autocast=True))
    assert (torch.bfloat16 in seen) is has_instructions
    assert model.head.weights.dtype == torch.float32


@pytest.mark.parametrize("has_instructions", [False, True])
def test_products_in_half_precision(has_instructions, monkeypatch):
    """They change what is learned a little, where the processor has them, and nothing that is decided with it."""
    monkeypatch.setattr("slots.training.loop.multiplies_bfloat16", lambda device: has_instructions)
    x, y = blobs(300, spread=1.2)
    wide, narrow = (fit(x, y, config=replace(QUICK, half_products=it))[0] for it in (False, True))
    assert torch.equal(wide.head.weights, narrow.head.weights) is not has_instructions
    assert narrow.head.weights.dtype == torch.float32
    assert np.mean(wide.predict(x).labels == narrow.predict(x).labels) > 0.95
    features = torch.from_numpy(x)
    with torch.no_grad():
        scores, rough = narrow.head.scores(features), narrow.head.scores(features, half=True)
    assert rough.dtype == torch.float32
    assert 0 < float((scores - rough).abs().max()) <= 0.008


def test_growing_matches_every_example_that_can_be():
    x, y = blobs(200, spread=1.2)
    x[5], x[6] = x[7], 0  # a contradiction and a zero vector
    y[5] = (y[7] + 1) % 4
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    head = IncrementalNeuralHashing(8)
    added = head.grow(features, labels, torch.arange(1000, 1200))
    assert added == head.n_slots > 4
    scores = head.scores(features)
    fires = scores > precision_thresholds(scores, head.labels, labels)
    own = (fires & (labels[:, None] == head.labels)).any(1)
    assert set(torch.nonzero(~own)[:, 0].tolist()) == {5, 6, 7}
    assert not (fires & (labels[:, None] != head.labels)).any()
    assert torch.equal(labels[head.exemplars[:, 0] - 1000], head.labels)
    head.hits.zero_()
    assert head.grow(features, labels) == 0
    assert int(head.hits.sum()) == int((fires & (labels[:, None] == head.labels)).sum())


def test_dropping_and_pruning_keep_the_order_of_the_rest():
    head = head_with(torch.eye(4), torch.tensor([5, 6, 7, 5]))
    head.hits = torch.tensor([1, 0, 3, 2])
    assert head.prune(min_hits=2) == 2
    assert head.labels.tolist() == [7, 5]
    assert torch.equal(head.weights.detach(), torch.eye(4)[2:])
    assert head.hits.tolist() == [0, 0]
    assert head.n_classes == 3
    with pytest.raises(ValueError, match=r"`keep_mask` must have shape \(2,\)"):
        head.drop_slots(torch.tensor([True]))


def test_a_step_keeps_the_slots_on_the_sphere_and_lowers_the_loss():
    torch.manual_seed(0)
    head = head_with(torch.randn(6, 4), torch.arange(6) % 3)
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(head(x), y)
        losses.append(float(loss.detach()))
        loss.backward()
        head.step_(0.005)
        assert head.weights.grad is None
        assert torch.allclose(head.weights.norm(dim=1), torch.ones(6))
    assert losses[-1] < losses[0]


def test_state_round_trips_into_a_head_of_another_size():
    outer = nn.Sequential(nn.Identity(), head_with(torch.randn(7, 3), torch.arange(7)))
    fresh = nn.Sequential(nn.Identity(), head_with(torch.randn(2, 3), torch.tensor([4, 9])))
    fresh.load_state_dict(outer.state_dict())
    assert same_state(outer, fresh)
    with pytest.raises(RuntimeError, match="size mismatch"):
        IncrementalNeuralHashing(4).load_state_dict(outer[1].state_dict())
    partial = {key: value for key, value in outer[1].state_dict().items() if key != "centres"}
    with pytest.raises(RuntimeError, match="centres"):
        IncrementalNeuralHashing(3).load_state_dict(partial)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: IncrementalNeuralHashing(0), ValueError, "`feature_dim` must be >= 1, got 0"),
        (lambda: IncrementalNeuralHashing(2, scale=0), ValueError, "`scale` must be > 0"),
        (lambda: IncrementalNeuralHashing(2)(torch.ones(1, 2)), EmptyHeadError, "no slots yet"),
        (lambda: IncrementalNeuralHashing(2).predict(torch.ones(1, 2)), EmptyHeadError, "no slots yet"),
        (
            lambda: head_with(torch.eye(2), torch.arange(2))(torch.ones(1, 3)),
            ValueError,
            r"must have shape \(batch, 2\)",
        ),
        (lambda: head_with(torch.eye(2), torch.arange(2)).predict(torch.ones(1, 3)), ValueError, "feature_dim=3"),
        (lambda: head_with(torch.zeros(1, 2), torch.arange(1)), ValueError, "no zero row"),
        (lambda: head_with(torch.eye(2), torch.arange(3)), ValueError, r"must have shape \(3, 2\)"),
    ],
)
def test_messages_of_the_head(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


# --- calibration


@pytest.mark.parametrize("block", [1, 7, 100])
def test_thresholds_over_blocks_are_the_float64_maximum(block):
    x, y = blobs(150, spread=1.5)
    views = torch.from_numpy(np.stack([x, x[::-1]], 1).copy())
    labels, weights = torch.from_numpy(y), normalize(torch.randn(6, 8))
    accumulator = PrecisionAccumulator(weights, torch.arange(6) % 4)
    for i in range(0, 150, block):
        accumulator.update(views[i : i + block], labels[i : i + block])
    exact = torch.einsum("nvf,kf->nvk", normalize(views.double()), normalize(weights.double())).amax(1)
    for k, found in enumerate(accumulator.thresholds().double()):
        most = exact[labels != k % 4, k].max()
        assert most < found < most + 2e-7


def test_a_crowd_of_equal_rivals_never_fires():
    torch.manual_seed(2)
    weight = normalize(torch.randn(1, 50))
    rivals = (weight + 0.3 * normalize(torch.randn(1, 50))).repeat(500, 1)
    rivals = rivals * (1 + 1e-7 * torch.randn(500, 50))  # equal but for the last bits
    for block in (1, 9, 500):
        accumulator = PrecisionAccumulator(weight, torch.tensor([1]))
        for i in range(0, 500, block):
            accumulator.update(rivals[i : i + block, None], torch.zeros(len(rivals[i : i + block])).long())
        exact = normalize(rivals.double()) @ normalize(weight.double()).T
        assert (exact.max() < accumulator.thresholds().double()).all()


def test_lower_precision_over_groups_of_slots_is_the_plain_rule(monkeypatch):
    x, y = blobs(150, spread=1.5)
    features, labels = torch.from_numpy(x)[:, None], torch.from_numpy(y)
    weights = normalize(torch.randn(6, 8))
    expected = precision_thresholds(normalize(features[:, 0]) @ weights.T, torch.arange(6) % 4, labels, precision=0.8)
    monkeypatch.setattr("slots.head.exact_thresholds._PASS_FLOATS", 300)  # two slots a pass
    blocks = [(features[:70], labels[:70]), (features[70:], labels[70:])]
    found = precision_thresholds_over(lambda: iter(blocks), weights, torch.arange(6) % 4, precision=0.8, n_examples=150)
    assert torch.allclose(found, expected.clamp_min(-1), atol=1e-6)


def test_slack_keeps_its_promise_on_new_data():
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(300):
        slack = slack_for(torch.from_numpy(np.abs(rng.normal(size=60))), 0.9)
        kept.append(np.mean(np.abs(rng.normal(size=200)) <= slack))
    assert 0.9 - 0.01 < np.mean(kept) < 0.93
    assert slack_for(torch.zeros(0), 0.9) == 0.0
    assert slack_for(torch.tensor([-0.5, -0.1]), 0.9) == 0.0
    with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\), got 1"):
        slack_for(torch.ones(3), 1)


# --- the closing pass


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_full_closing_matches_every_training_example_and_never_wrongly(spread):
    x, y = blobs(400, spread=spread)
    x[10], x[11] = x[12] * 3, 0  # equal directions under two labels, and a zero vector
    y[10] = (y[12] + 1) % 4
    model, result = fit(x, y, config=replace(QUICK, closing=FULL))
    answers = model.predict(x)
    assert set(result.closing.contradictions.tolist()) == {10, 11, 12}
    assert set(np.flatnonzero(~answers.matched)) == {10, 11, 12}
    assert not answers.ambiguous.any()
    assert (answers.labels == y)[answers.matched].all()
    assert np.array_equal(result.closing.labels, answers.labels)
    assert np.array_equal(result.closing.matched, answers.matched)


def test_compact_closing_is_precise_too_and_smaller():
    x, y = blobs(600, spread=1.5)
    compact, small = fit(x, y, config=QUICK)
    full, _ = fit(x, y, config=replace(QUICK, closing=FULL))
    answers = compact.predict(x)
    assert (answers.labels == y)[answers.matched].all()
    assert compact.head.n_slots < full.head.n_slots
    assert np.array_equal(small.closing.labels, answers.labels)
    assert np.array_equal(small.closing.matched, answers.matched)


def test_lower_precision_lets_slots_reach_further_over_label_noise():
    x, y = blobs(600, spread=0.5)
    noisy = y.copy()
    noisy[::15] = (noisy[::15] + 1) % 4
    strict, _ = fit(x, noisy, config=QUICK)
    tolerant, result = fit(x, noisy, config=replace(QUICK, precision=0.9))
    assert tolerant.predict(x).matched.mean() > strict.predict(x).matched.mean()
    answers = tolerant.predict(x)
    assert np.array_equal(result.closing.labels, answers.labels)
    assert (answers.labels == y)[answers.matched].mean() > 0.95


def test_caps_reach_no_further_than_their_examples():
    x, y = blobs(600)
    model, _ = fit(x, y, config=QUICK)
    noise = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    assert model.predict(x).matched.mean() > 0.9
    assert model.predict(noise).matched.mean() < 0.2
    head = model.head
    assert (head.support_thresholds > 0.5).all()
    assert int(head.held_out[:, 0].sum()) > 0
    assert (head.held_out[:, 1] <= head.held_out[:, 0]).all()
    assert torch.equal(torch.from_numpy(y)[head.exemplars[:, 0]], head.labels)


# --- training


@pytest.mark.parametrize("start", [3, 0])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(start):
    x, y = strokes()
    fits = []
    for seed in (1, 1, 2):
        torch.manual_seed(7)  # the backbone is the caller's
        config = replace(QUICK, slots_per_class=start, seed=seed, augment="shift1")
        fits.append(fit(x, y, backbone=TinyNet(), config=config)[0])
    assert same_state(fits[0], fits[1])
    assert not same_state(fits[0], fits[2])
    assert fits[0].backbone.constrained == 4 * 2


def steady(backbone, inputs):
    """A regulariser that draws at random."""
    found = stabilize(backbone, inputs)
    return found.features, found.loss


@pytest.mark.parametrize(("start", "regularizer"), [(3, None), (0, None), (3, steady)])
def test_a_killed_fit_goes_on_to_the_same_bits(start, regularizer, tmp_path):
    x, y = strokes()
    config = replace(QUICK, slots_per_class=start, augment="shift1", views="cross1")
    path = tmp_path / "checkpoint"

    def run(**options):
        torch.manual_seed(7)
        return fit(x, y, backbone=TinyNet(), config=config, checkpoint=path, regularizer=regularizer, **options)

    class Killed(Exception):
        """Stands for a kill between two batches of the third epoch."""

    def kill(step, share):
        if step.startswith("epoch 3") and share == 1.0:
            raise Killed

    whole, _ = run()
    assert not path.exists()
    with pytest.raises(Killed):
        run(progress=kill)
    assert path.exists()
    again, result = run(resume=True)
    assert result.epochs == 4
    assert same_state(whole, again)
    assert not path.exists()


def test_a_stop_leaves_a_closed_model():
    x, y = blobs()
    calls = iter(range(1000))
    model, result = fit(x, y, config=replace(QUICK, epochs=500), stop=lambda: next(calls) > 8)
    assert result.interrupted
    assert 0 < result.epochs < 5
    assert (model.predict(x).labels == y).mean() > 0.9


def test_checkpoints_of_other_fits_or_damaged_ones_are_refused(tmp_path):
    x, y = blobs()
    path = tmp_path / "checkpoint"

    def die(step, share):
        if step.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(x, y, config=QUICK, checkpoint=path, progress=die)
    with pytest.raises(UsageError, match="belongs to a fit with other data or options"):
        fit(x, y, config=replace(QUICK, seed=3), checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="cannot be read"):
        fit(x, y, config=QUICK, checkpoint=path, resume=True)


def test_training_learns_a_backbone():
    x, y = strokes(200)
    torch.manual_seed(0)
    model, result = fit(x, y, backbone=TinyNet(), config=replace(QUICK, epochs=25, backbone_lr=0.02, scale=20.0))
    assert result.losses[-1] < result.losses[0] / 2
    fresh, truth = strokes(100, seed=9)
    assert (model.predict(fresh).labels == truth).mean() > 0.9


def test_a_backbone_sees_data_before_and_hears_of_progress_during_the_training():
    x, y = strokes(100)
    net = TinyNet()
    fit(x, y, backbone=net, config=TrainConfig(epochs=2, batch_size=50, slots_per_class=2, held_out=0.0))
    (sample,) = net.prepared
    assert sample.shape == (100, 1, 8, 8)
    assert 0 <= float(sample.min()) < float(sample.max()) <= 1
    assert net.heard == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert net.constrained == 4


def test_a_regularizer_takes_the_place_of_the_backbone_and_adds_to_the_loss():
    x, y = strokes(120)
    config = TrainConfig(epochs=2, batch_size=40, slots_per_class=2, views="flip", backbone_lr=0.05, weight_decay=0.0)

    def trained(**options):
        torch.manual_seed(0)
        net = TinyNet()
        _, result = fit(x, y, backbone=net, config=config, **options)
        return net, result.losses

    def detached(net, inputs):
        assert inputs.shape[1:] == (1, 8, 8)
        return net(inputs).detach(), 0 * net(inputs).sum()

    plain, losses = trained()
    same, same_losses = trained(regularizer=lambda net, inputs: (net(inputs), torch.zeros(())))
    assert same_state(plain, same)
    assert losses == same_losses
    _, raised = trained(regularizer=lambda net, inputs: (net(inputs), torch.tensor(3.0)))
    np.testing.assert_allclose(np.array(raised) - losses, 3.0, rtol=1e-5)
    still, _ = trained(regularizer=detached)
    torch.manual_seed(0)
    assert torch.equal(still.convolution.weight, TinyNet().convolution.weight)
    assert not torch.equal(plain.convolution.weight, still.convolution.weight)


@pytest.mark.parametrize("sampled_views", [1, 2])
def test_a_frozen_net_computes_its_features_once_and_learns_the_same(monkeypatch, sampled_views):
    x, y = strokes(160)
    config = TrainConfig(epochs=3, batch_size=40, slots_per_class=3, views="flip", sampled_views=sampled_views)
    torch.manual_seed(0)
    net = TinyNet(width=12).requires_grad_(False)
    passes = []
    net.register_forward_hook(lambda _net, inputs, _output: passes.append(len(inputs[0])))
    kept, _ = fit(x, y, backbone=net, config=config)
    with_memory = sum(passes)
    passes.clear()
    monkeypatch.setattr("slots.features.source.KEPT_BYTES", 0)
    plain, _ = fit(x, y, backbone=net, config=config)
    assert with_memory == 2 * len(x) + 1  # every view once, and one example to learn the number of features
    assert sum(passes) > 5 * with_memory
    torch.testing.assert_close(kept.head.weights, plain.head.weights, rtol=0, atol=1e-4)
    assert (kept.predict(x).labels == y).mean() > 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_have_gaps_and_any_whole_type(dtype):
    x, y = blobs(120, classes=2)
    model, _ = fit(x, np.array([2, 7], dtype)[y], config=QUICK)
    assert set(model.predict(x).labels) == {2, 7}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_examples_is_enough(n):
    x, y = np.eye(4, dtype=np.float32)[:n], np.arange(n)
    model, _ = fit(x, y, config=QUICK)
    assert model.predict(x).labels.tolist() == y.tolist()
    assert len(model.predict(x[:0])) == 0


def test_one_class_becomes_a_novelty_detector():
    x, y = blobs(300, classes=1)
    model, _ = fit(x, y, config=QUICK)
    assert model.predict(x).matched.mean() > 0.9
    assert model.predict(-x).matched.mean() == 0.0


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.ones((0, 3), np.float32), np.zeros(0, int), "at least one example, got none"),
        (np.ones((3, 2), np.float32), np.zeros(2, int), r"`y` must have shape \(3,\), got \(2,\)"),
        (np.ones((3, 2), np.float32), np.array([0, 1, -1]), "whole numbers >= 0"),
        (np.ones((3, 2), np.float32), np.array([0.0, 1, 1]), "whole numbers >= 0"),
        (np.array([[1, np.nan]], np.float32), np.zeros(1, int), "NaN or infinity in row 0"),
        (np.ones((3, 2), int), np.zeros(3, int), "must be uint8 images"),
        (np.ones((3, 2, 2, 1, 1), np.uint8), np.zeros(3, int), "must be uint8 images"),
    ],
)
def test_messages_on_data(x, y, says):
    with pytest.raises(DataError, match=says):
        fit(x, y, config=QUICK)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": -1}, "`epochs` must be >= 0, got -1"),
        ({"batch_size": 0}, "`batch_size` must be >= 1"),
        ({"held_out": 1.0}, r"`held_out` must lie in \[0, 1\)"),
        ({"precision": 0.0}, r"`precision` must lie in \(0, 1\]"),
        ({"scale": 0.0}, "`scale` and `slot_lr` must be > 0"),
        ({"slots_per_class": 0, "epochs": 0}, "`epochs` must be >= 1 when slots are grown"),
    ],
)
def test_messages_on_options(options, says):
    with pytest.raises(UsageError, match=says):
        TrainConfig(**options)


def test_images_need_a_backbone_and_features_have_no_views():
    with pytest.raises(UsageError, match="`backbone` must be given for images"):
        fit(*strokes(20), config=QUICK)
    with pytest.raises(UsageError, match="`views` must be 'none' for features"):
        fit(*blobs(20), config=replace(QUICK, views="flip"))


def test_held_out_ids_are_few_sorted_and_seeded():
    ids = hold_out(np.arange(1000) % 4, 0.05, 3)
    assert len(ids) == 50
    assert np.array_equal(ids, np.unique(ids))
    assert np.array_equal(ids, hold_out(np.arange(1000) % 4, 0.05, 3))
    assert len(hold_out(np.arange(100) % 4, 0.05, 3)) == 0


# --- the model on disk


def test_a_model_comes_back_whole(tmp_path):
    x, y = strokes()
    model, _ = fit(x, y, backbone=TinyNet(), config=replace(QUICK, views="flip"), class_names=("row", "column"))
    model.save(tmp_path / "model")
    again = SlotModel.load(tmp_path / "model", build=build_tiny)
    assert same_state(model, again)
    assert again.class_names == ("row", "column")
    assert again.class_name(5) == "5"
    assert again.thumbnails.shape == (model.head.n_slots, 4, 8, 8, 1)
    assert np.array_equal(again.thumbnails[:, 0, ..., 0], x[model.head.exemplars[:, 0]])
    before, after = model.predict(x), again.predict(x)
    for name in vars(before):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    with pytest.raises(ModelError, match=r"has the backbone 'tiny'. Pass build=backbones.build"):
        SlotModel.load(tmp_path / "model")
    with pytest.raises(DataError, match=r"uint8 images of shape \(example, 8, 8\)"):
        again.predict(x[:, :4])


def test_a_backbone_without_a_recipe_cannot_be_saved(tmp_path):
    x, y = strokes()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    model, _ = fit(x, y, backbone=net, config=QUICK)
    with pytest.raises(UsageError, match="without a spec cannot be saved"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("slots_per_class", [0, 4])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_class_of_zero_rows_has_no_slot_and_spoils_no_other(zero, slots_per_class):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 100)
    x = (np.eye(3)[y] + rng.normal(0, 0.1, (300, 3))).astype(np.float32)
    x[y == zero] = 0
    model, _ = fit(x, y, config=TrainConfig(epochs=3, slots_per_class=slots_per_class))
    assert zero not in model.head.labels.tolist()
    seen = y != zero
    assert (model.predict(x[seen]).labels == y[seen]).all()
    assert not model.predict(x[~seen]).matched.any()


def test_nothing_but_zeros_is_refused():
    with pytest.raises(DataError, match="`x` must have an example that is not all zeros, got none"):
        fit(np.zeros((20, 3), np.float32), np.repeat([0, 1], 10))
