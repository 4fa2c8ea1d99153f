"""Fits without a learning backbone take torch's steps, store torch's state, and import no compiler for it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nursery import run
from torch import nn

from slots.head.hashing import IncrementalNeuralHashing
from slots.training.checkpoint import Checkpoint
from slots.training.config import TrainConfig
from slots.training.optimizers import follow, make_optimizers, set_rates
from slots.training.slot_adam import SlotAdam


class Slots(nn.Module):
    """A head in name: what an optimiser asks of it."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 8), st.booleans())
def test_a_fit_stopped_and_resumed_is_that_of_torch(seed, before, after, replaced):
    draws = torch.Generator().manual_seed(seed)
    start = torch.randn(6, 5, generator=draws)
    ours, theirs = Slots(start.clone()), Slots(start.clone())
    config = TrainConfig(slot_lr=0.1)
    mine = make_optimizers(ours, nn.Identity(), config)
    assert isinstance(mine[0], SlotAdam)
    peer = [torch.optim.AdamW([{**mine[0].param_groups[0], "params": [theirs.weights]}], weight_decay=0.0)]
    for step in range(before + after):
        gradient = torch.randn(ours.weights.shape, generator=draws)
        for slots, optimizers in ((ours, mine), (theirs, peer)):
            optimizers[0].zero_grad()
            assert slots.weights.grad is None
            if step % 4 != 3:  # a step without a gradient leaves the slots alone
                slots.weights.grad = gradient.clone()
            set_rates(optimizers, step / 20)
            optimizers[0].step()
        if step == before - 1:
            stored = [Checkpoint.of(slots, opts, []) for slots, opts in ((ours, mine), (theirs, peer))]
            assert stored[0].optimizer.keys() == stored[1].optimizer.keys()
            assert all(torch.equal(stored[0].optimizer[key], stored[1].optimizer[key]) for key in stored[0].optimizer)
            mine = make_optimizers(ours, nn.Identity(), config)
            stored[1].restore(mine)  # a checkpoint of a version that used torch's
        if replaced and step == before:
            for slots, optimizers in ((ours, mine), (theirs, peer)):
                slots.weights = nn.Parameter(torch.cat([slots.weights.detach(), torch.ones(1, 5)]))
                follow(optimizers, slots)
        assert torch.equal(ours.weights, theirs.weights)


@pytest.mark.parametrize("backbone", [nn.Linear(5, 5), nn.Conv2d(1, 2, 3)])
def test_a_backbone_that_learns_has_an_optimiser_of_torch(backbone):
    optimizers = make_optimizers(IncrementalNeuralHashing(5), backbone, TrainConfig(backbone_lr=1e-3))
    assert isinstance(optimizers[0], torch.optim.AdamW)
    backbone.requires_grad_(False)
    optimizers = make_optimizers(IncrementalNeuralHashing(5), backbone, TrainConfig(backbone_lr=1e-3))
    assert isinstance(optimizers[0], SlotAdam)


def test_a_fit_of_pictures_imports_no_compiler(tmp_path):
    script = tmp_path / "fits.py"
    script.write_text("""
import sys, numpy as np, backbones, slots
x = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1)).astype(np.uint8)
y = np.arange(60) % 2
net = backbones.build("pixels", input_shape=(1, 8, 8))
slots.fit(x, y, backbone=net, config=slots.TrainConfig(epochs=1, slots_per_class=2))
assert "torch._dynamo" not in sys.modules
""")
    done = run([], script=script)
    assert done.returncode == 0, done.stderr
