"""Certificates of whole models: attacked as hard as gradients allow, and refused where none can hold."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import slots
from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.robust import RobustConfig, certify
from slots.robust.certificate import certify_rows
from slots.training.robust_slots import SHARP


class Pixels(nn.Module):
    keeps_inputs = True

    def forward(self, x):
        return x.flatten(1)


def strokes(n, seed):
    """Images of three kinds of strokes, a little noisy."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.integers(0, 60, (n, 6, 6))
    for image, label in zip(x, y, strict=True):
        where = 2 + rng.integers(0, 2)
        if label == 0:
            image[where] += 150
        elif label == 1:
            image[:, where] += 150
        else:
            image[np.arange(6), np.arange(6)] += 150
    return x.clip(0, 255).astype(np.uint8), y


@pytest.fixture(scope="module")
def fitted():
    x, y = strokes(400, 0)
    config = slots.TrainConfig(
        epochs=15, slots_per_class=4, batch_size=50, slot_lr=0.01, robust=RobustConfig(radius=1.5)
    )
    return slots.fit(x, y, backbone=Pixels(), config=config)


def attacked(model, rows, labels, sizes, norm, *, steps=30, seed=0):
    """Rows moved inside their balls and the box, up the lead of the best slot of another label; all points visited."""
    generator = torch.Generator().manual_seed(seed)
    weights, of = normalize(model.head.weights.detach().double()), model.head.labels
    mine = of == torch.from_numpy(labels)[:, None]
    size = torch.from_numpy(sizes)[:, None]
    for start in range(3):
        noise = torch.randn(rows.shape, generator=generator).double()
        noise = noise.sign() if norm == "linf" else normalize(noise)
        x = rows + (0 if start == 0 else 1) * size * noise
        for _ in range(steps):
            x = x.clamp(0, 1)
            yield x
            scores = x @ weights.T
            up = weights[scores.masked_fill(mine, -math.inf).argmax(1)]
            way = up - weights[scores.masked_fill(~mine, -math.inf).argmax(1)]
            way = way.sign() if norm == "linf" else normalize(way)
            change = x + 0.2 * size * way - rows
            if norm == "linf":
                change = change.clamp(-size, size)
            else:
                change = change * (size / change.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(max=1)
            x = rows + change


@pytest.mark.parametrize(("norm", "method"), [("l2", "pair"), ("l2", "box"), ("l2", "dual"), ("linf", "box")])
def test_no_attack_inside_changes_what_is_certified(fitted, norm, method):
    model, _ = fitted
    x, _ = strokes(60, 1)
    found = certify(model, x, norm=norm, method=method)
    rows = torch.from_numpy(x.reshape(len(x), -1)).double() / 255
    labels = found.prediction.labels
    assert (found.radii > 0).mean() > 0.5
    for name, radii in (("label", found.radii), ("match", found.matched_radii), ("vouch", found.vouched_radii)):
        some = radii > 0
        size = np.minimum(radii[some], 3.0) * 0.9999
        for points in attacked(model, rows[some], labels[some], size, norm):
            answers = model.head.predict(points)
            same = answers.labels == labels[some]
            assert {
                "label": same,
                "match": same & answers.matched,
                "vouch": same | ~answers.matched,
            }[name].all()


def test_the_counterfactual_is_the_nearest_image_with_another_nearest_slot(fitted):
    model, _ = fitted
    x, _ = strokes(20, 2)
    found = certify(model, x, method="dual")
    rows = x.reshape(20, -1) / 255
    change = found.counterfactuals - rows
    weights = normalize(model.head.weights.detach().double()).numpy()[model.head.pooled.numpy()]
    of = model.head.labels[model.head.pooled].numpy()
    assert np.allclose(np.linalg.norm(change, axis=1), found.nearest_radii, atol=0.05)
    assert (of[((rows + 0.9 * change) @ weights.T).argmax(1)] == found.nearest_labels).all()
    assert (of[((rows + 1.1 * change) @ weights.T).argmax(1)] != found.nearest_labels).all()
    assert found.counterfactuals.min() >= -1e-12
    assert found.counterfactuals.max() <= 1 + 1e-12


def test_a_certified_answer_is_that_of_whatever_it_was_made_from(fitted):
    model, _ = fitted
    x, _ = strokes(60, 7)
    rows = torch.from_numpy(x.reshape(len(x), -1)).double() / 255
    before = certify(model, x)
    size = 0.8
    kept, changed = 0, 0
    for points in attacked(model, rows, before.nearest_labels, np.full(len(x), size), "l2", steps=15):
        found = certify_rows(model.head, points, box=(0.0, 1.0))
        sure = found.certified(size)
        assert (found.prediction.labels[sure] == before.nearest_labels[sure]).all()
        kept, changed = kept + sure.sum(), changed + (found.nearest_labels != before.nearest_labels).sum()
    assert kept > 0
    assert changed > 0  # those that the attack reached are refused


def test_unmatched_inputs_get_the_label_of_their_nearest_slot(fitted):
    model, result = fitted
    assert model.head.beta == SHARP
    assert result.losses[-1] < result.losses[0]
    x, y = strokes(200, 3)
    found = certify(model, x, norm="l2")
    open_ = ~found.prediction.matched & (found.nearest_radii > 0)
    assert (found.nearest_labels[open_] == found.prediction.labels[open_]).all()
    assert (found.prediction.labels == y).mean() > 0.9


def test_training_for_it_certifies_more(fitted):
    x, y = strokes(400, 0)
    plain, _ = slots.fit(x, y, backbone=Pixels(), config=slots.TrainConfig(epochs=15, slots_per_class=4, batch_size=50))
    new, right = strokes(100, 4)
    radii = [
        np.where(found.nearest_labels == right, found.nearest_radii, 0).mean()
        for found in (certify(model, new, method="box") for model in (fitted[0], plain))
    ]
    assert radii[0] > 1.1 * radii[1]


def test_a_share_of_the_images_is_shown_as_it_is():
    x, y = strokes(60, 8)

    def weights(augment, plain):
        config = slots.TrainConfig(
            epochs=1, slots_per_class=1, batch_size=60, slot_lr=0.05, augment=augment, robust=RobustConfig(plain=plain)
        )
        return slots.fit(x, y, backbone=Pixels(), config=config)[0].head.weights.detach()

    plain, moved = weights("none", 0.5), weights("shift1", 0.0)
    assert torch.equal(weights("shift1", 1.0), plain)
    assert not torch.equal(moved, plain)
    half = weights("shift1", 0.5)
    assert not torch.equal(half, plain)
    assert not torch.equal(half, moved)


def test_an_update_keeps_the_certificates_of_matches():
    x, y = strokes(200, 6)
    model, _ = slots.fit(
        x, y, backbone=Pixels(), config=slots.TrainConfig(epochs=3, slots_per_class=2, robust=RobustConfig())
    )
    turned = strokes(60, 5)[0][:, :, ::-1].copy()  # the third kind becomes the other diagonal
    before = certify(model, x)
    done = model.update(turned, dict.fromkeys(range(60), "other"))
    after = certify(model, x)
    assert done.slots_added > 0
    kept = before.matched_radii > 0
    assert kept.any()
    assert (after.matched_radii[kept] >= before.matched_radii[kept] * (1 - 1e-12)).all()
    assert (after.radii[kept] >= before.matched_radii[kept] * (1 - 1e-12)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views": "shift1"}, "`robust` must come without `views` and `standardize`"),
        ({"standardize": True}, "`robust` must come without `views` and `standardize`"),
        ({"whitening": 0.1}, "`robust` must come with features that are the inputs themselves"),
        ({"slots_per_class": 0}, "`slots_per_class` must be >= 1 with `robust`"),
    ],
)
def test_fits_behind_which_no_radius_holds_are_refused(options, said):
    x, y = strokes(30, 0)
    with pytest.raises(UsageError, match=said):
        slots.fit(x, y, backbone=Pixels(), config=slots.TrainConfig(robust=RobustConfig(), **options))


def test_a_backbone_is_refused():
    x, y = strokes(30, 0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).requires_grad_(False)
    with pytest.raises(UsageError, match="features that are the inputs themselves"):
        slots.fit(x, y, backbone=net, config=slots.TrainConfig(robust=RobustConfig()))
    model, _ = slots.fit(x, y, backbone=net, config=slots.TrainConfig(epochs=1))
    with pytest.raises(UsageError, match="`model` must have features that are the inputs themselves"):
        certify(model, x)


def test_one_class_and_resuming_are_refused():
    x, y = strokes(30, 0)
    config = slots.TrainConfig(robust=RobustConfig(), epochs=1)
    with pytest.raises(slots.errors.DataError, match="at least two classes"):
        slots.fit(x, y * 0, backbone=Pixels(), config=config)
    with pytest.raises(UsageError, match="`resume` must be left out with `robust`"):
        slots.fit(x, y, backbone=Pixels(), config=config, resume=True)


def test_views_and_a_standardization_are_refused():
    x, y = strokes(30, 0)
    for options in ({"views": "shift1"}, {"standardize": True}):
        model, _ = slots.fit(x, y, backbone=Pixels(), config=slots.TrainConfig(epochs=1, **options))
        with pytest.raises(UsageError, match="`model` must have one view and unshifted pixels"):
            certify(model, x)
