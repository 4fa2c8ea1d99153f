"""Which slots match, by loops over single numbers in float64, and inputs placed where rounding could tell."""

import dataclasses
import math

import numpy as np
import torch
from hypothesis import strategies as st
from support import reference_head as literal

from slots.head.caps import SlotCaps
from slots.head.similarities import normalize


def matching(views, caps):
    """All (example, slot) of which some view lies strictly inside both caps, sorted."""
    found = []
    for example in range(len(views)):
        for slot in range(len(caps.labels)):
            for view in views[example].numpy():
                in_weight = literal.cosine(view, caps.weights[slot].numpy()) > float(caps.precision[slot])
                if in_weight and literal.cosine(view, caps.centres[slot].numpy()) > float(caps.support[slot]):
                    found.append((example, slot))
                    break
    return found


def listed(pairs):
    """The same of what the index returns."""
    return list(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))


def at_cosine(axis, aside, cosine):
    """A unit vector of a wanted cosine to a unit axis, in the plane of another vector."""
    aside = aside - (aside @ axis) * axis
    return cosine * axis + math.sqrt(max(0.0, 1 - cosine**2)) * aside / np.linalg.norm(aside)


def random_caps(rng, n_slots, feature, *, apart=0.3, loose=-0.1, tight=0.9):
    """Slots whose centre lies aside of the weight; some equal theirs, some have no limit, some never fire."""
    weights = normalize(torch.from_numpy(rng.normal(size=(n_slots, feature))).float())
    aside = normalize(torch.from_numpy(rng.normal(size=(n_slots, feature))).float())
    centres = torch.where(torch.from_numpy(rng.random((n_slots, 1)) < 0.2), weights, normalize(weights + apart * aside))
    precision = torch.from_numpy(rng.uniform(loose, tight, n_slots)).float()
    support = torch.from_numpy(rng.uniform(loose, tight, n_slots)).float()
    kind = rng.integers(0, 12, n_slots)
    precision[torch.from_numpy(kind == 0)] = -math.inf
    support[torch.from_numpy(kind == 1)] = -2.0
    support[torch.from_numpy(kind == 2)] = 2.0
    return SlotCaps(
        weights=weights,
        centres=centres,
        precision=precision,
        support=support,
        labels=torch.from_numpy(rng.integers(0, 4, n_slots)),
        generations=torch.from_numpy(rng.integers(0, 3, n_slots)),
        pooled=torch.from_numpy(rng.random(n_slots) < 0.7),
        beta=20.0,
    )


def inputs_near(rng, caps, n, n_views):
    """Inputs around slots, of any length; half of the views at most 1e-6 off a threshold, on either side."""
    features = np.zeros((n, n_views, caps.weights.shape[1]))
    for place in np.ndindex(n, n_views):
        slot = int(rng.integers(len(caps.labels)))
        vectors, limits = [(caps.weights, caps.precision), (caps.centres, caps.support)][int(rng.integers(2))]
        axis = literal.unit(vectors[slot].numpy())
        aside, limit = rng.normal(size=len(axis)), float(limits[slot])
        if rng.random() < 0.5 and abs(limit) < 1:
            row = at_cosine(axis, aside, limit + rng.uniform(-1e-6, 1e-6))
        else:
            row = axis + rng.uniform(0.05, 1.5) * aside / math.sqrt(len(axis))
        features[place] = row * rng.uniform(0.1, 30)
    features[0, 0] = 0
    return torch.from_numpy(features).float()


def changed(caps, **fields):
    return dataclasses.replace(caps, **fields)


def tight(caps, seed):
    """For two of three seeds caps so small that much is unmatched; else some that hold everything."""
    least = [-math.inf, 0.8, 0.97][seed % 3]
    return changed(caps, precision=caps.precision.clamp_min(least))


def case(seed, n_slots, feature, n_views, n_labels, beta):
    """Slots of several labels and generations, and inputs at their edges."""
    rng = np.random.default_rng(seed)
    caps = random_caps(rng, n_slots, feature, loose=0.3)
    labels = torch.from_numpy(rng.integers(0, n_labels, n_slots) * 3 - 4)
    return changed(tight(caps, seed), labels=labels, beta=beta), inputs_near(rng, caps, 40, n_views)


cases = st.tuples(
    st.integers(0, 2**31),
    st.integers(1, 120),
    st.sampled_from([2, 3, 8, 70]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.0, 20.0, 400.0]),
)
