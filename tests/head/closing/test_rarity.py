"""Caps beside classes of few examples: the angle is that of a loop, and equal classes change nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from slots.closing.caps import Reference
from slots.closing.rarity import allow_for_rare, lacking
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.features.views import parse_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.progress import silent


def reference(x: np.ndarray, y: np.ndarray, head: IncrementalNeuralHashing) -> Reference:
    featurizer = Featurizer(
        Preprocessing("features", (x.shape[1],)), parse_views("none"), torch.nn.Identity(), feature_dim=x.shape[1]
    )
    return Reference(head, FeatureSource(featurizer, x), torch.from_numpy(y), silent)


def drawn(seed: int, sizes: list[int]) -> tuple[Reference, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    x = rng.normal(size=(len(y), 5)).astype(np.float32)
    head = IncrementalNeuralHashing(5)
    head.add_slots(torch.from_numpy(rng.normal(size=(7, 5)).astype(np.float32)), torch.arange(7) % len(sizes) * 3)
    head.precision_thresholds = torch.from_numpy(rng.uniform(-1, 0.9, 7).astype(np.float32))
    head.support_thresholds = torch.zeros(7)
    return reference(x, y, head), y


def literal_limits(x: np.ndarray, y: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> list[float]:
    """Angle at which each cap must end; infinity for none."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    sizes = {label: int((y == label).sum()) for label in np.unique(y)}
    mean, found = np.mean(list(sizes.values())), []

    def largest(n: float) -> float:
        return float(stats.norm.ppf((n - 0.375) / (n + 0.25)))

    for weight, own in zip(weights, labels, strict=True):
        angles = np.arccos(np.clip(unit @ weight.astype(float), -1, 1))
        spread = sum(((angles[y == label] - angles[y == label].mean()) ** 2).sum() for label in sizes)
        spread = math.sqrt(spread / max(1, len(y) - len(sizes)))
        limits = [math.inf]
        for label, n in sizes.items():
            lack = largest(mean) - largest(n)
            if label != own and lack > 0:
                limits.append(angles[y == label].min() - lack * spread)
        found.append(min(limits))
    return found


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_angle_is_that_of_a_loop(seed, sizes):
    data, y = drawn(seed, sizes)
    before, ids = data.head.precision_thresholds.clone(), np.arange(len(y))
    changed = allow_for_rare(data, ids)
    assert changed == bool((lacking(np.array(sizes)) > 0.05).any())
    x = np.asarray(data.source.x)
    limits = literal_limits(x, y, data.head.weights.detach().numpy(), data.head.labels.numpy())
    for slot, limit in enumerate(limits):
        after, old = float(data.head.precision_thresholds[slot]), float(before[slot])
        expected = max(old, math.cos(max(0.0, limit))) if changed and limit < math.inf else old
        assert after == pytest.approx(expected, abs=1e-5)
        assert after >= old
        vanished = float(data.head.support_thresholds[slot]) > 1
        assert vanished == (changed and limit <= 0) or abs(limit) < 1e-5


def test_many_slots_are_looked_at_in_parts(monkeypatch):
    whole, y = drawn(1, [30, 3, 1])
    parts, _ = drawn(1, [30, 3, 1])
    assert allow_for_rare(whole, np.arange(len(y)))
    monkeypatch.setattr("slots.closing.rarity._TABLE", 6)  # two slots at a time
    assert allow_for_rare(parts, np.arange(len(y)))
    assert torch.equal(whole.head.precision_thresholds, parts.head.precision_thresholds)
    assert torch.equal(whole.head.support_thresholds, parts.head.support_thresholds)


def test_equal_classes_and_no_slots_change_nothing():
    data, y = drawn(0, [9, 9, 9])
    assert not allow_for_rare(data, np.arange(len(y)))
    empty = reference(np.eye(5, dtype=np.float32), np.array([0, 0, 0, 0, 1]), IncrementalNeuralHashing(5))
    assert not allow_for_rare(empty, np.arange(5))
