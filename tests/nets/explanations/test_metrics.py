"""Numbers about explanations, for cases that can be worked out by hand."""

import math

import pytest
import torch
from captum.attr import Saliency
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max

from backbones.explanations.ascent import gradient
from backbones.explanations.metrics import (
    Perturbed,
    alignment,
    deletion_and_insertion,
    infidelity,
    max_sensitivity,
    perturb,
    stability,
)


def test_alignment():
    found = alignment(
        torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0], [1.0, 0.0]])
    )
    assert found.tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0])
    with pytest.raises(ValueError, match=r"`reference` must have shape \(1, 2\), got \(2,\)\."):
        alignment(torch.ones(1, 2), torch.ones(2))


def test_stability_is_the_mean_over_pairs():
    assert stability(torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]])) == pytest.approx(1 / 3)
    assert stability(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-1.0)
    torch.manual_seed(0)
    templates = torch.randn(6, 2, 3)
    templates[2] = 0
    unit = [t.flatten() / max(float(t.norm()), 1e-30) for t in templates]
    pairs = [float(unit[i] @ unit[j]) for i in range(6) for j in range(i)]
    assert stability(templates) == pytest.approx(sum(pairs) / 15, abs=1e-6)
    with pytest.raises(ValueError, match="`templates` must hold at least 2, got 1"):
        stability(torch.ones(1, 3))


def test_curves_of_a_sum():
    x = torch.tensor([[[[8.0, 4.0], [2.0, 1.0]]]])
    saliency = torch.tensor([[[4.0, 1.0], [3.0, 2.0]]])  # takes 8, 2, 1, 4
    found = deletion_and_insertion(lambda x: x.sum((1, 2, 3)), x, saliency, steps=4)
    assert found.deletion.tolist() == [[15.0, 7.0, 5.0, 4.0, 0.0]]
    assert found.insertion.tolist() == [[0.0, 8.0, 10.0, 11.0, 15.0]]
    assert found.deletion_auc.tolist() == [(11 + 6 + 4.5 + 2) / 4]
    assert found.insertion_auc.tolist() == [(4 + 9 + 10.5 + 13) / 4]
    ones = deletion_and_insertion(lambda x: x.sum((1, 2, 3)), x, saliency, steps=2, baseline=torch.ones(1, 1, 1))
    assert ones.deletion.tolist() == [[15.0, 7.0 - 2 + 2, 4.0]]


def test_curves_of_two_channels_and_ties():
    x = torch.arange(8.0).view(1, 2, 2, 2)
    found = deletion_and_insertion(lambda x: x.sum((1, 2, 3)), x, torch.zeros(1, 2, 2), steps=4)
    assert found.deletion.tolist() == [[28.0, 24.0, 18.0, 10.0, 0.0]]  # pixels in their order, both channels at once
    with pytest.raises(
        ValueError, match=r"`saliency` must have shape \(batch, height, width\) of `x`, got \(1, 2, 2, 2\)"
    ):
        deletion_and_insertion(lambda x: x.sum((1, 2, 3)), x, x)
    with pytest.raises(ValueError, match="`steps` must be a positive integer"):
        deletion_and_insertion(lambda x: x.sum((1, 2, 3)), x, torch.zeros(1, 2, 2), steps=0)


def test_infidelity_by_hand():
    noise = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    perturbed = Perturbed(noise, torch.tensor([[3.0], [4.0]]))
    assert infidelity(torch.tensor([[3.0, 2.0]]), perturbed).item() == 0
    assert infidelity(torch.tensor([[1.0, 1.0]]), perturbed).item() == pytest.approx(((1 - 3) ** 2 + (2 - 4) ** 2) / 2)
    # best factor (1 * 3 + 2 * 4) / (1 + 4) = 2.2
    assert infidelity(torch.tensor([[1.0, 1.0]]), perturbed, rescale=True).item() == pytest.approx(
        (0.8**2 + 0.4**2) / 2
    )
    assert infidelity(torch.zeros(1, 2), perturbed, rescale=True).item() == pytest.approx(12.5)


def test_a_linear_model_is_explained_by_its_weights():
    torch.manual_seed(0)
    weight = torch.randn(12, dtype=torch.float64)
    x = torch.randn(3, 12, dtype=torch.float64)
    perturbed = perturb(lambda x: x @ weight, x, deviation=0.5, samples=7)
    assert perturbed.noise.shape == (7, 3, 12)
    assert perturbed.noise.std().item() == pytest.approx(0.5, rel=0.15)
    assert infidelity(weight.expand(3, 12), perturbed).max() < 1e-20
    assert infidelity(-weight.expand(3, 12), perturbed, rescale=True).max() < 1e-20
    assert infidelity(weight.flip(0).expand(3, 12), perturbed).min() > 0.1
    assert torch.equal(perturb(lambda x: x @ weight, x, deviation=0.5, samples=7).drops, perturbed.drops)
    linear = torch.nn.Linear(12, 1).double()
    assert max_sensitivity(lambda y: gradient(linear, y, 0), x, radius=0.1, samples=2).max() == 0


def test_sensitivity_of_a_square():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    found = max_sensitivity(lambda x: 2 * x, x, radius=0.1, samples=200)
    assert found[0].item() == pytest.approx(0.1 * math.sqrt(2) / 5, rel=0.1)
    assert found[0].item() <= 0.1 * math.sqrt(2) / 5
    assert found[1].item() == math.inf
    few = max_sensitivity(lambda x: 2 * x, x, radius=0.1, samples=3)
    assert few[0] <= found[0]


# Beside captum, with the same noise


@pytest.fixture
def net():
    torch.manual_seed(1)
    layers = torch.nn.Conv2d(2, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 9, 3)
    return torch.nn.Sequential(*layers).double().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(4, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("rescale", [False, True])
def test_infidelity_is_captums(net, images, rescale):
    attribution = gradient(net, images, 1)
    attribution[3] = 0
    perturbed = perturb(lambda x: net(x)[:, 1], images, deviation=0.3, samples=6, seed=5)
    noise = perturbed.noise.transpose(0, 1).flatten(0, 1)  # theirs: all samples of the first input first
    theirs = captum_infidelity(
        net, lambda x: (noise, x - noise), images, attribution, target=1, n_perturb_samples=6, normalize=rescale
    )
    ours = infidelity(attribution, perturbed, rescale=rescale)
    assert ours.min() > 1e-5
    assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_max_sensitivity_is_captums(net, images):
    generator = torch.Generator().manual_seed(7)
    noise = torch.stack([2 * torch.rand(images.shape, generator=generator, dtype=images.dtype) - 1 for _ in range(5)])
    noise = 0.05 * noise.transpose(0, 1).flatten(0, 1)
    explain = Saliency(net)
    theirs = sensitivity_max(explain.attribute, images, lambda x: x + noise, n_perturb_samples=5, target=1, abs=False)
    ours = max_sensitivity(lambda x: gradient(net, x, 1, kind="plain"), images, radius=0.05, samples=5, seed=7)
    assert ours.min() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-9)


def test_of_an_attribution_that_begins_at_0_ours_says_inf_and_captums_the_change():
    x = torch.zeros(1, 2, dtype=torch.float64)
    assert max_sensitivity(lambda x: 2 * x, x, radius=0.1).item() == math.inf
    theirs = sensitivity_max(lambda x: (2 * (x[0] if isinstance(x, tuple) else x),), x, lambda x: x + 0.1)
    assert theirs.item() == pytest.approx(0.2 * math.sqrt(2))


def test_sentences():
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"`deviation` must be above 0, got 0\."):
        perturb(lambda x: x.sum(1), x, deviation=0)
    with pytest.raises(ValueError, match="`samples` must be a positive integer"):
        perturb(lambda x: x.sum(1), x, deviation=1.0, samples=0)
    with pytest.raises(ValueError, match=r"`radius` must be above 0, got -1\."):
        max_sensitivity(lambda x: x, x, radius=-1)
    with pytest.raises(ValueError, match="`samples` must be a positive integer"):
        max_sensitivity(lambda x: x, x, radius=1.0, samples=0)
