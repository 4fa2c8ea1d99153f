"""Muon: orthogonal steps of one length, against the singular value decomposition and a step written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nets import TinyNet, same_state, strokes
from torch import nn

from slots.errors import UsageError
from slots.head.hashing import IncrementalNeuralHashing
from slots.training.config import TrainConfig
from slots.training.fitting import fit
from slots.training.muon import Muon, matrices, orthogonalize
from slots.training.optimizers import make_optimizers, set_rates


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 999))
def test_orthogonalized_has_the_same_directions_and_singular_values_near_one(rows, columns, seed):
    torch.manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, dtype=torch.float64), full_matrices=False)
    rank = min(rows, columns)
    values = torch.linspace(1.0, 0.2, rank, dtype=torch.float64)
    found = orthogonalize(u @ values.diag() @ v)
    middle = u.T @ found @ v.T
    torch.testing.assert_close(u @ middle @ v, found, rtol=0, atol=1e-12)
    torch.testing.assert_close(middle, middle.diag().diag(), rtol=0, atol=1e-12)
    assert ((middle.diag() > 0.65) & (middle.diag() < 1.25)).all()
    torch.testing.assert_close(found, orthogonalize(7 * u @ values.diag() @ v), rtol=0, atol=1e-12)


def test_singular_values_follow_the_polynomial():
    values = torch.tensor([0.8, 0.6], dtype=torch.float64)  # Frobenius norm 1
    expected = values.clone()
    for _ in range(3):
        expected = 3.4445 * expected - 4.775 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(orthogonalize(values.diag()), expected.diag(), rtol=0, atol=1e-12)
    assert torch.equal(orthogonalize(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_two_steps_written_out():
    torch.manual_seed(3)
    start = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    gradients = [torch.randn_like(start), torch.randn_like(start)]
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=0.3, momentum=0.5)
    expected, momentum = start.reshape(4, 18), torch.zeros(4, 18, dtype=torch.float64)
    norm = expected.norm()
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        flat = gradient.reshape(4, 18)
        momentum = 0.5 * momentum + flat
        expected = expected - 0.3 * norm / 2 * orthogonalize(flat + 0.5 * momentum)
        expected = expected * norm / expected.norm()
    torch.testing.assert_close(parameter.detach(), expected.reshape(start.shape), rtol=0, atol=1e-12)
    parameter.grad = None
    optimizer.step()
    assert torch.equal(parameter.detach().norm(), parameter.norm())


def test_messages():
    with pytest.raises(ValueError, match=r"`params` must have two or more axes, got shape \(3,\)\. Give vectors to"):
        Muon([nn.Parameter(torch.zeros(3))])
    with pytest.raises(ValueError, match=r"`closure` must be left out, got one\."):
        Muon([nn.Parameter(torch.zeros(3, 3))]).step(lambda: 0.0)
    with pytest.raises(UsageError, match="`backbone_lr` and `matrix_lr` >= 0"):
        TrainConfig(matrix_lr=-0.1)


def test_each_parameter_gets_one_optimiser():
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3), nn.Linear(5, 6))
    backbone[3].bias.requires_grad_(False)
    head = IncrementalNeuralHashing(6)
    assert [list(weight.shape) for weight in matrices(backbone)] == [[4, 1, 3, 3], [6, 5]]
    adamw, muon = make_optimizers(head, backbone, TrainConfig(matrix_lr=0.2, backbone_lr=1e-2, slot_lr=5e-3))
    held = [parameter for group in [*adamw.param_groups, *muon.param_groups] for parameter in group["params"]]
    wanted = [head.weights, *(p for p in backbone.parameters() if p.requires_grad)]
    assert sorted(map(id, held)) == sorted(map(id, wanted))
    assert held[0] is head.weights
    assert len(make_optimizers(head, backbone, TrainConfig())) == 1
    assert len(make_optimizers(head, nn.Identity(), TrainConfig(matrix_lr=0.2))) == 1


def test_rates_over_the_training():
    optimizers = make_optimizers(
        IncrementalNeuralHashing(2), nn.Conv2d(2, 2, 3), TrainConfig(matrix_lr=0.2, backbone_lr=1e-2, slot_lr=5e-3)
    )
    rates = []
    for progress in (0.0, 0.1, 0.2, 0.6, 1.0):
        set_rates(optimizers, progress)
        rates.append([group["lr"] for optimizer in optimizers for group in optimizer.param_groups])
    slots, rest, moved = np.array(rates).T
    np.testing.assert_allclose(slots, 5e-3 * 0.5 * (1 + np.cos(np.pi * np.array([0, 0.1, 0.2, 0.6, 1]))))
    np.testing.assert_allclose(rest, [1e-4, 5e-3, 1e-2, 5e-3, 0], atol=1e-12)
    np.testing.assert_allclose(moved, [0.2, 0.18, 0.16, 0.08, 0], atol=1e-12)


def test_a_fit_with_muon_learns_and_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    x, y = strokes()
    config = TrainConfig(epochs=4, batch_size=30, slots_per_class=2, matrix_lr=0.2, standardize=True)

    def net():
        torch.manual_seed(1)
        return TinyNet()

    whole, result = fit(x, y, backbone=net(), config=config)
    assert result.losses[-1] < result.losses[0] / 2
    assert (whole.predict(x).labels == y).mean() > 0.95
    seen = []

    def killed(step, _share):
        seen.append(step)
        if step.startswith("epoch 3/4"):
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(x, y, backbone=net(), config=config, checkpoint=path, progress=killed)
    again, _ = fit(x, y, backbone=net(), config=config, checkpoint=path, resume=True)
    assert same_state(whole, again)
