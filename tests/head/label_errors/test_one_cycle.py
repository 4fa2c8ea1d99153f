"""Adam under the one-cycle rate: torch's own, bit for bit."""

import pytest
import torch
from torch import nn

from slots.label_errors.one_cycle import OneCycleAdam


def parameters():
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 5), torch.float32), ((4,), torch.float64), ((2, 3, 3, 3), torch.float32), ((6,), torch.float32)
    drawn = [torch.randn(shape, generator=generator, dtype=kind) for shape, kind in shapes]
    return [nn.Parameter(it.contiguous(memory_format=torch.channels_last) if it.ndim == 4 else it) for it in drawn]


@pytest.mark.parametrize("total", [1, 2, 4, 7, 40])
def test_steps_are_torchs_own(total):
    """Parameters of two kinds; the last has a gradient at every third step only."""
    ours, theirs = parameters(), parameters()
    adam = torch.optim.Adam(theirs, 3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=total)
    optimizer, generator = OneCycleAdam(ours, 3e-3, total), torch.Generator().manual_seed(2)
    for number in range(total):
        optimizer.zero_grad()
        adam.zero_grad()
        assert optimizer.now() == (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"][0])
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if place < 3 or number % 3 == 0:
                one.grad = torch.randn(one.shape, generator=generator, dtype=one.dtype)
                other.grad = one.grad.clone()
        optimizer.step()
        adam.step()
        schedule.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
