import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.adam import Adam


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_steps_are_those_of_torch(seed, n):
    draws = torch.Generator().manual_seed(seed)
    start = torch.randn(7, 5, generator=draws)
    ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
    adam, peer = Adam(ours), torch.optim.Adam([theirs], lr=1.0)
    for _ in range(n):
        gradient = torch.randn(7, 5, generator=draws) * 10 ** torch.randn(7, 5, generator=draws)
        rate = float(torch.rand(1, generator=draws))
        peer.param_groups[0]["lr"] = rate
        theirs.grad = gradient.clone()
        peer.step()
        adam.step(gradient, rate)
        assert torch.equal(ours, theirs.detach())
