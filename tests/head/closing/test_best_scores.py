"""The score of a pair is that of its best view, as all scores of all views would say it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.closing.residual_cover import _best_scores
from slots.head.caps import SlotCaps
from slots.head.decision import candidate_pairs, matching_pairs
from slots.head.similarities import best_view, normalize
from slots.rounding import full_product


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(1, 4), st.integers(1, 5), st.floats(-1, 1))
def test_scores_of_matching_pairs(seed, n, n_views, n_slots, precision):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, n_views, 3, generator=generator)
    unit = normalize(torch.randn(n_slots, 3, generator=generator))
    labels = torch.arange(n_slots)
    caps = SlotCaps(
        weights=unit, centres=unit, precision=torch.full((n_slots,), precision), support=torch.full((n_slots,), -2.0),
        labels=labels, generations=torch.zeros_like(labels), pooled=labels > -1, beta=10.0,
    )  # fmt: skip
    triples = candidate_pairs(features, caps)
    example, slot = matching_pairs(features, caps, candidates=triples)
    some = torch.rand(len(example), generator=generator) > 0.3
    dense = best_view(full_product(normalize(features), unit.T))[0]
    found = _best_scores(triples, example[some], slot[some], n_slots)
    assert torch.equal(found, dense[example[some], slot[some]])
