"""Exact ties between classes: the same answer alone, in a batch, and by the index."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.head.caps import SlotCaps
from slots.head.decision import decide
from slots.head.similarities import normalize
from slots.index.slot_index import SlotIndex

PARTS = ("labels", "answers", "slots", "runner_up_slots")


def tied(seed):
    """Slots of which no input is inside, classes with the same slots or the same in another order of the features."""
    rng = np.random.default_rng(seed)
    d, per, classes, views = (int(n) for n in rng.integers([2, 1, 2, 1], [40, 4, 6, 3]))
    base = rng.integers(-2, 3, (per, d)).astype(np.float32)
    base[0, 0] = 1
    copies = [base[:, rng.permutation(d)] if rng.random() < 0.6 else base for _ in range(classes)]
    weights = normalize(torch.from_numpy(np.concatenate(copies)))
    n, none = len(weights), torch.ones(len(weights))
    labels, zeros = torch.arange(classes).repeat_interleave(per), torch.zeros(n, dtype=torch.long)
    caps = SlotCaps(weights, weights, none, none, labels, zeros, torch.ones(n, dtype=torch.bool), 20.0)
    alike = np.ones((8, views, d)) * rng.integers(1, 4, (8, 1, 1))  # as near to a slot as to its features in any order
    return caps, torch.from_numpy(np.concatenate([alike, rng.integers(-1, 2, (16, views, d))]).astype(np.float32))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_ties_fall_alike_alone_in_a_batch_and_by_the_index(seed):
    caps, x = tied(seed)
    index = SlotIndex(caps)
    together, found = decide(x, caps), index.predict(x)
    for part in PARTS:
        assert np.array_equal(getattr(found, part), getattr(together, part))
    for i in range(len(x)):
        for answers in (decide(x[i : i + 1], caps), index.predict(x[i : i + 1])):
            assert [getattr(answers, part)[0] for part in PARTS] == [getattr(together, part)[i] for part in PARTS]


def test_there_are_ties():
    caps, x = tied(0)
    scores = torch.stack(
        [(normalize(x.double()) @ caps.weights[caps.labels == c].double().T).amax((1, 2)) for c in (0, 1)]
    )
    assert (scores[0] - scores[1]).abs().lt(1e-12).sum() >= 8
