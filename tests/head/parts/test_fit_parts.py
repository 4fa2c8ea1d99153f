"""A fit with parts: few features a slot, answers that are sums over patches, and a model like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import backbones
import slots
from protocols.recipes.building import load_model
from slots.errors import UsageError
from slots.parts import PartConfig, explain_by_parts, fit_parts
from slots.parts.fitting import final_config
from slots.training.config import TrainConfig

CONFIG = TrainConfig(
    epochs=16, batch_size=40, slots_per_class=4, scale=30.0, beta=30.0, slot_lr=6e-3, backbone_lr=6e-3,
    weight_decay=1e-2, features_per_slot=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x, y = (data.images * 255 / 16).astype(np.uint8), data.target
    order = np.random.default_rng(0).permutation(len(y))
    return x[order[:1200]], y[order[:1200]], x[order[1200:]], y[order[1200:]]


@pytest.fixture(scope="module")
def fitted(digits):
    torch.manual_seed(0)
    x, y, _, _ = digits
    net = backbones.build("parts", input_shape=(1, 8, 8), channels=30, width=16, receptive_field=5)
    return fit_parts(x[:1000], y[:1000], backbone=net, config=CONFIG, parts=PartConfig(max_parts=40))


def test_few_patches_know_the_digits(fitted, digits):
    model, result = fitted
    _, _, x, y = digits
    assert (model.predict(x).labels == y).mean() > 0.9
    assert model.backbone.n_parts == len(result.parts.sources) <= 40
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    trained = model.head.weights[model.head.pooled]
    assert ((trained != 0).sum(1) <= 5).all()
    assert (trained >= 0).all()


def test_shares_add_up_to_the_score(fitted, digits):
    model, _ = fitted
    x = digits[2][:40]
    answers = model.predict(x)
    with torch.no_grad():
        features = model.featurizer.features(x)[:, 0]
        cosines = model.head.scores(features)
    for row, answer in enumerate(explain_by_parts(model, x)):
        assert (answer.label, answer.answered_by) == (answers.labels[row], answers.slots[row])
        trained = model.head.pooled & (model.head.labels == answer.label)
        assert trained[answer.slot]
        if not trained[answer.answered_by]:
            best = cosines[row].masked_fill(~trained, -1).argmax()
        assert answer.slot == (answer.answered_by if trained[answer.answered_by] else best)
        assert len(answer.shares) <= 5
        assert sum(share.share for share in answer.shares) == pytest.approx(answer.cosine, abs=1e-12)
        assert answer.cosine == pytest.approx(cosines[row, answer.slot].item(), abs=1e-5)
        assert all(share.share > 0 for share in answer.shares)
        assert [share.share for share in answer.shares] == sorted((s.share for s in answer.shares), reverse=True)
        assert len({(share.part, share.box) for share in answer.shares}) == len(answer.shares)


def test_what_lies_outside_of_the_boxes_is_no_part_of_the_answer(fitted, digits):
    """Pixels outside of every box that was named leave the responses that make the score as they are, to the bit."""
    model, _ = fitted
    x = digits[2][:8]
    for row, answer in enumerate(explain_by_parts(model, x)):
        outside = np.ones((8, 8), bool)
        for share in answer.shares:
            top, left, bottom, right = share.box
            outside[top:bottom, left:right] = False
        changed = np.where(outside, 0, x[row]).astype(np.uint8)
        with torch.no_grad():
            before, after = (model.backbone(model.preprocessing(image[None], "cpu"))[0] for image in (x[row], changed))
        for share in answer.shares:
            for cell in share.cells:
                feature = (share.part * model.backbone.cells[0] + cell[0]) * model.backbone.cells[1] + cell[1]
                assert after[feature] >= before[feature]  # elsewhere in the cell it may be found better now


def test_sources_are_pixels_of_training_images(fitted, digits):
    model, result = fitted
    images = digits[0]
    for part, (example, row, column) in enumerate(result.parts.sources.tolist()):
        patch = model.preprocessing(images[example][None], "cpu")[0, :, row : row + 5, column : column + 5]
        assert torch.equal(patch, model.backbone.patches[part])


def test_a_model_of_parts_is_a_model_like_any_other(fitted, digits, tmp_path):
    model, _ = fitted
    x = digits[2][:50]
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert np.array_equal(again.predict(x).labels, model.predict(x).labels)
    assert [a.shares for a in explain_by_parts(again, x[:5])] == [a.shares for a in explain_by_parts(model, x[:5])]


def test_slots_on_chosen_parts_may_have_fewer_features():
    config = replace(CONFIG, augment="shift1")
    same = final_config(config, PartConfig())
    assert (same.features_per_slot, same.slots_per_class, same.augment, same.epochs) == (5, 4, "none", 16)
    few = final_config(replace(config, epochs=3), PartConfig(features_per_slot=2, slots_per_class=7))
    assert (few.features_per_slot, few.slots_per_class, few.epochs) == (2, 7, 12)


def test_other_models_have_no_parts(digits):
    x, y, _, _ = digits
    model, _ = slots.fit(x[:100], y[:100], backbone=backbones.build("pixels", input_shape=(1, 8, 8)))
    with pytest.raises(UsageError, match="`backbone` must have parts, got Pixels"):
        explain_by_parts(model, x[:1])
