"""The slope of a refinement's loss against autograd on the same formula."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from slots.head.pooling import class_groups, softmax_pool
from slots.head.similarities import normalize
from slots.update.refining.rehearsal_gradient import RehearsalGradient, classes_by_size


def by_autograd(unit, old, old_labels, moving, labels, wanted, lead, *, scale, beta):
    every, moving = torch.cat([old_labels, labels]), moving.clone().requires_grad_()
    viewed = torch.cat([unit @ old.T, unit @ normalize(moving).T], -1)
    pooled = softmax_pool(viewed.amax(1), class_groups(every, every.unique()), beta=beta)
    right = functional.one_hot(wanted, pooled.shape[1])
    loss = functional.cross_entropy(scale * (pooled - lead[:, None] * right), wanted)
    return torch.autograd.grad(loss, moving)[0]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.lists(st.integers(0, 4), max_size=9),
    st.lists(st.integers(2, 6), min_size=1, max_size=9),
    st.sampled_from([1.0, 40.0]),
    st.sampled_from([0.0, 1.0, 20.0]),
)
def test_it_is_that_of_autograd(seed, views, old_labels, labels, scale, beta):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    unit, old = normalize(draw(7, views, 5)), normalize(draw(len(old_labels), 5))
    moving, lead = draw(len(labels), 5), 0.1 * draw(7).abs()
    old_labels, labels = (torch.tensor(it, dtype=torch.long) for it in (old_labels, labels))
    n_classes = len(torch.cat([old_labels, labels]).unique())
    wanted = torch.randint(n_classes, (7,), generator=generator)
    slope = RehearsalGradient.of(old, old_labels, labels, scale=scale, beta=beta)(unit, moving, wanted, lead)
    expected = by_autograd(unit, old, old_labels, moving, labels, wanted, lead, scale=scale, beta=beta)
    assert torch.allclose(slope, expected, rtol=1e-9, atol=1e-12)


def test_classes_of_very_different_sizes_go_by_their_sizes():
    """A table of all of them would be empty mostly; each class stands in one part, and each moving slot."""
    generator = torch.Generator().manual_seed(0)
    old_labels, labels = torch.cat([torch.arange(30), torch.full((12,), 3)]), torch.tensor([31] * 40 + [3, 5, 32, 5])
    parts = classes_by_size(torch.cat([old_labels, labels]), len(old_labels))
    assert len(parts) > 2
    assert sum(part.groups.numel() for part in parts) < 3 * (len(old_labels) + len(labels))
    assert torch.cat([part.classes for part in parts]).sort().values.tolist() == list(range(32))
    assert torch.cat([part.moving for part in parts]).sort().values.tolist() == list(range(len(labels)))
    unit, old, moving = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (50, 42, 44))
    unit, wanted, lead = (
        normalize(unit)[:, None],
        torch.randint(32, (50,), generator=generator),
        torch.full((50,), 0.02),
    )
    slope = RehearsalGradient.of(old, old_labels, labels, scale=30.0, beta=20.0)(unit, moving, wanted, lead)
    expected = by_autograd(unit, old, old_labels, moving, labels, wanted, lead, scale=30.0, beta=20.0)
    assert torch.allclose(slope, expected, rtol=1e-9, atol=1e-12)


def test_nothing_is_changed():
    unit, old, moving = normalize(torch.randn(3, 2, 4)), normalize(torch.randn(2, 4)), torch.randn(2, 4)
    before = [it.clone() for it in (unit, old, moving)]
    slope = RehearsalGradient.of(old, torch.tensor([0, 1]), torch.tensor([1, 2]), scale=30.0, beta=20.0)
    slope(unit, moving, torch.tensor([0, 1, 2]), torch.zeros(3))
    assert all(torch.equal(a, b) for a, b in zip((unit, old, moving), before, strict=True))
