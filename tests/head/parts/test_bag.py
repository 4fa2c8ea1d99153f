"""A network of parts that learns as a bag of patches first: what it shares, where its channels begin, and resumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import backbones
import slots
from slots.errors import UsageError
from slots.parts import PartConfig, fit_parts
from slots.parts.bag import train_bag
from slots.parts.network import train_network
from slots.parts.training import part_epochs
from slots.progress import silent
from slots.training.config import TrainConfig

CONFIG = TrainConfig(
    epochs=5, batch_size=40, slots_per_class=2, scale=30.0, beta=30.0, slot_lr=6e-3, backbone_lr=6e-3,
    features_per_slot=5,
)  # fmt: skip
PARTS = PartConfig(max_parts=30, bag=0.6, examples=200, candidates=200)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.images[:500] * 255 / 16).astype(np.uint8), data.target[:500]


def fresh():
    torch.manual_seed(0)
    return backbones.build("parts", input_shape=(1, 8, 8), channels=20, width=16, receptive_field=5)


@pytest.mark.parametrize(
    ("epochs", "bag", "left"), [(24, 2 / 3, 8), (24, 0.0, 24), (1, 0.9, 1), (0, 0.5, 0), (2, 0.9, 1), (3, 0.5, 1)]
)
def test_parts_keep_at_least_one_epoch(epochs, bag, left):
    assert part_epochs(TrainConfig(epochs=epochs), bag) == left


@pytest.mark.parametrize("bag", [-0.1, 1.0, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(bag):
    with pytest.raises(UsageError, match="`bag` must lie in"):
        PartConfig(bag=bag)


def test_a_bag_is_the_mean_of_what_patches_say():
    net = fresh().eval()
    x = torch.rand(3, 1, 8, 8)
    bag = net.bag()
    with torch.no_grad():
        for row in range(3):
            patches = [x[row : row + 1, :, i : i + 5, j : j + 5] for i in range(4) for j in range(4)]
            said = [net.encoder[0](patch)[0, :, 0, 0] for patch in patches]
            assert torch.allclose(bag(x)[row], torch.stack(said).mean(0), atol=1e-6)
    mine = {parameter.data_ptr() for parameter in net.encoder[0].parameters()}
    assert {parameter.data_ptr() for parameter in bag.parameters()} == mine


def test_channels_begin_at_directions():
    net = fresh()
    before = net.encoder[1].weight.detach().clone()
    wanted = torch.randn(7, 16)
    net.begin_channels_(wanted)
    assert torch.allclose(net.encoder[1].weight[:7, :, 0, 0], functional.normalize(wanted, dim=1))
    assert torch.equal(net.encoder[1].weight[7:], before[7:])
    for wrong in (torch.randn(21, 16), torch.randn(4, 15), torch.randn(16)):
        with pytest.raises(ValueError, match="`directions` must have a shape of at most"):
            net.begin_channels_(wrong)


def test_training_alone_is_the_training_of_a_fit(digits):
    """The same losses to the bit, and slots that nothing has closed yet."""
    x, y = digits
    trained = train_network(x, y, backbone=fresh(), config=CONFIG, progress=silent)
    _, result = slots.fit(x, y, backbone=fresh(), config=CONFIG)
    assert trained.losses == result.losses
    assert len(trained.model.head.labels) == 20
    assert len(trained.fitted) == 475  # the others are kept to calibrate what a fit closes
    assert (np.diff(trained.fitted) > 0).all()
    assert trained.model.novelty is None


def test_a_bag_learns_and_leaves_its_groups_to_the_channels(digits):
    x, y = digits
    net = fresh()
    channels = net.encoder[1].weight.detach().clone()
    trained = train_bag(x, y, backbone=net, config=replace(CONFIG, epochs=6), progress=silent)
    assert trained.losses[-1] < 0.5 * trained.losses[0]
    assert (trained.model.predict(x).labels == y).mean() > 0.9
    weight = net.encoder[1].weight[:, :, 0, 0]
    assert not torch.equal(weight, channels[:, :, 0, 0])
    assert torch.allclose(weight.norm(dim=1), torch.ones(20), atol=1e-5)
    cosines = (weight @ weight.T).fill_diagonal_(0)
    assert cosines.max() < 0.99  # groups, and not one direction many times


def test_a_bag_first_is_one_training_that_can_be_resumed_anywhere(digits, tmp_path):
    x, y = digits
    whole, result = fit_parts(x, y, backbone=fresh(), config=CONFIG, parts=PARTS)
    assert len(result.losses) == 5
    assert not result.interrupted
    for after in (1, 3, 4):  # within the bag, at its end, and within the parts
        file, heard = tmp_path / f"{after}.safetensors", []

        def hear(name, value, step, heard=heard):
            if name == "train/loss":
                heard.append((step, value))

        _, first = fit_parts(
            x, y, backbone=fresh(), config=CONFIG, parts=PARTS, checkpoint=file, keep_checkpoint=True,
            log=hear, stop=lambda heard=heard, after=after: len(heard) >= after,
        )  # fmt: skip
        assert first.interrupted
        assert [step for step, _ in heard] == list(range(1, after + 1))
        model, second = fit_parts(
            x, y, backbone=fresh(), config=CONFIG, parts=PARTS, checkpoint=file, resume=True, log=hear
        )
        assert second.losses == result.losses[0 if after < 4 else 3 :]
        assert [value for _, value in heard] == list(result.losses)
        assert not file.exists()
        assert torch.equal(model.head.weights, whole.head.weights)
        assert all(torch.equal(a, b) for a, b in zip(model.backbone.buffers(), whole.backbone.buffers(), strict=True))


def test_a_bag_that_was_stopped_is_told_even_if_parts_were_not(digits):
    x, y = digits
    said = iter([False, True])
    _, result = fit_parts(x, y, backbone=fresh(), config=CONFIG, parts=PARTS, stop=lambda: next(said, False))
    assert result.interrupted
    assert len(result.losses) == 2  # none of the bag's epochs was whole, both of the parts' were


def test_networks_without_a_bag_are_refused(digits):
    x, y = digits
    net = fresh()
    net.bag = None
    with pytest.raises(UsageError, match="`bag` must be 0 for Parts"):
        fit_parts(x, y, backbone=net, config=CONFIG, parts=PARTS)
