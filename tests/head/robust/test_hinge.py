"""The training for certificates: its pick is the definition, its gradient autograd's, and radii grow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_robust import dual_norm

from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.progress import silent
from slots.robust import LabelledSlots, RobustConfig, nearest_slot_radii
from slots.robust.hinge import decisive_pairs, hinge, train_robust


def drawn(seed, rows=6, n_slots=9, features=5):
    generator = torch.Generator().manual_seed(seed)
    slots = normalize(torch.randn(n_slots, features, generator=generator))
    labels = torch.arange(n_slots) % 3
    x = torch.rand(rows, features, generator=generator)
    return x, torch.randint(0, 3, (rows,), generator=generator), slots, labels


@given(st.integers(0, 10**6), st.sampled_from(["l2", "linf"]))
@settings(max_examples=30)
def test_the_pair_is_the_best_own_slot_and_its_worst_rival(seed, norm):
    x, wanted, slots, labels = drawn(seed)
    own, rival = decisive_pairs(x, wanted, slots, labels, norm)
    for row, label, i, j in zip(x.double(), wanted, own, rival, strict=True):
        scores = (slots.double() @ row).tolist()
        mine = [k for k in range(len(slots)) if labels[k] == label]
        assert scores[i] == pytest.approx(max(scores[k] for k in mine))
        danger = {
            k: (scores[i] - scores[k]) / dual_norm((slots[i] - slots[k]).tolist(), norm)
            for k in range(len(slots))
            if k not in mine
        }
        assert danger[int(j)] == pytest.approx(min(danger.values()), abs=1e-5)


@given(
    st.integers(0, 10**6), st.sampled_from(["l2", "linf"]), st.sampled_from([0.1, 2.0]), st.sampled_from([None, 0, -9])
)
@settings(max_examples=40)
def test_the_gradient_is_that_of_the_hinge_along_the_sphere(seed, norm, radius, floor):
    x, wanted, slots, labels = drawn(seed)
    config = RobustConfig(norm, radius, floor=floor)
    picked = decisive_pairs(x, wanted, slots, labels, norm)
    loss, gradient = hinge(x, slots, picked, config)
    free = slots.clone().requires_grad_()
    apart = free[picked[0]] - free[picked[1]]
    size = apart.norm(dim=1) if norm == "l2" else apart.abs().sum(1)
    expected = (radius - (x * apart).sum(1) / size).clamp(0, radius - config.least).mean()
    expected.backward()
    along = free.grad - (free.grad * slots).sum(1, keepdim=True) * slots
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-7)
    torch.testing.assert_close(gradient, along, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_training_widens_the_radii(norm):
    rng = np.random.default_rng(0)
    centres = rng.random((2, 20))
    labels = torch.arange(2).repeat(40)
    x = torch.from_numpy(centres[labels] + 0.2 * rng.normal(size=(80, 20))).float()
    start, of = normalize(x[:2] + 0.5), torch.tensor([0, 1])

    def batches(epoch):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(80))
        for part in order.split(20):
            yield x[part], labels[part]

    def mean_radius(slots):
        found = nearest_slot_radii(x.double().numpy(), LabelledSlots.of(slots, of), norm=norm)
        return np.where(found.labels == labels.numpy(), found.radii, 0.0).mean()

    found = train_robust(
        start, of, batches, RobustConfig(norm, 5.0), epochs=20, steps=4, rate=0.02, progress=silent, stop=lambda: False
    )
    assert len(found.losses) == 20
    assert not found.stopped
    assert found.losses[-1] < found.losses[0]
    assert mean_radius(found.weights) > 1.1 * mean_radius(start)
    torch.testing.assert_close(found.weights.norm(dim=1), torch.ones(2))


def test_a_training_can_be_ended():
    x, wanted, slots, labels = drawn(0)
    found = train_robust(
        slots, labels, lambda _: iter([(x, wanted)] * 3), RobustConfig(), epochs=5, steps=3, rate=0.01,
        progress=silent, stop=lambda: True,
    )  # fmt: skip
    assert found.stopped
    assert found.losses == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"norm": "l1"}, "`norm` must be l2 or linf, got 'l1'"),
        ({"radius": 0}, "`radius` must be a number > 0, got 0"),
        ({"plain": 2}, r"`plain` must lie in \[0, 1\], got 2"),
        ({"floor": 0.1}, "`floor` must be <= 0, got 0.1"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        RobustConfig(**options)
