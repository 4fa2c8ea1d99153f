"""Tighter support caps keep the share that was asked for, never grow, and at reach 1 are the same bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_head import angle, cosine, slot_margin

from slots.closing.closing_pass import answer
from slots.closing.shrinkage import shrink_support, support_depth
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel


def quiet(_step, _share):
    pass


def made(seed, feature=4, n=80):
    """A source over random rows, some slots with wide caps, one without a support limit, one that matches nothing."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(5, feature, generator=generator)
    head = IncrementalNeuralHashing(feature)
    head.add_slots(
        weights,
        torch.tensor([0, 1, 2, 0, 1]),
        centres=weights + 0.3 * torch.randn(5, feature, generator=generator),
        precision_thresholds=torch.rand(5, generator=generator) * 0.5,
        support_thresholds=torch.tensor([0.3, 0.5, 0.7, -2.0, 2.0]),
    )
    rows = weights[torch.randint(0, 5, (n,), generator=generator)] + torch.randn(n, feature, generator=generator)
    model = SlotModel(Preprocessing("features", (feature,)), head)
    return FeatureSource(model.featurizer, rows.numpy()), head


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_the_share_asked_for_stays_matched(seed, reach):
    (source, head), ids = made(seed), np.arange(10, 70)
    before, limits = answer(source, head, ids, quiet).matched, head.support_thresholds.clone()
    turned = shrink_support(source, head, ids, reach=reach, progress=quiet)
    after, now = answer(source, head, ids, quiet).matched, head.support_thresholds
    n = int(before.sum())
    assert not (after & ~before).any()
    assert int(after.sum()) == n - (math.floor((1 - reach) * n) if reach < 1 else 0)
    assert after.sum() >= reach * n - 1e-9  # 0.05000000000000001 * 40 is more than 2
    assert turned >= 0
    assert bool((now.clamp_min(-1) >= limits.clamp_min(-1) - 2e-7).all()), "no cap grows by more than rounding"
    assert now[4] == 2, "what matched nothing goes on matching nothing"
    if turned > 0:
        wanted = [max(0.0, angle(float(limit)) - turned) for limit in limits[:4]]
        assert now[:4].double().clamp(-1, 1).arccos().tolist() == pytest.approx(wanted, abs=1e-3)


def test_reach_1_changes_no_bit():
    source, head = made(0)
    limits = head.support_thresholds.clone()
    assert shrink_support(source, head, np.arange(40), reach=1.0, progress=quiet) == 0.0
    assert torch.equal(head.support_thresholds, limits)


def test_without_held_out_examples_all_are_used_and_without_any_nothing_happens():
    source, twin = made(1), made(1)
    assert shrink_support(*source, np.zeros(0, np.int64), reach=0.5, progress=quiet) == shrink_support(
        *twin, np.arange(80), reach=0.5, progress=quiet
    )
    empty = made(2, n=0)
    assert shrink_support(*empty, np.zeros(0, np.int64), reach=0.5, progress=quiet) == 0.0


def test_depth_is_the_literal_one():
    source, head = made(3)
    caps, found = head.caps(), support_depth(source, head, np.arange(80))
    for i in range(80):
        views = [source.x[i]]
        inside = [
            angle(float(caps.support[k])) - angle(cosine(views[0], caps.centres[k].numpy()))
            for k in range(5)
            if slot_margin(views, caps, k)[1]
        ]
        assert float(found[i]) == pytest.approx(max(inside, default=-math.inf), abs=1e-7)
    assert bool((found > 0).any())
    assert bool((found < 0).any())


def test_the_radius_falls_as_the_reach_falls():
    turned = [
        shrink_support(*made(4), np.arange(80), reach=reach, progress=quiet) for reach in (1.0, 0.9, 0.7, 0.4, 0.1)
    ]
    assert turned == sorted(turned)
    assert turned[0] < turned[-1]
