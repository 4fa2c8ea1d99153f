"""Small models of feature rows whose slots, examples and generations are known by construction."""

import numpy as np
import torch

from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation


def near(directions, *, count=4, spread=0.05, seed=0):
    """Unit vectors around each direction, shape (direction, count, feature)."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(directions), count, directions.shape[1])))
    return normalize(directions[:, None] + spread * noise.float())


def three_animals():
    """Six slots around six axes: cat, cat, dog, dog, bird, bird; four remembered examples each; generation 0."""
    axes = torch.eye(8)[:6]
    head = IncrementalNeuralHashing(feature_dim=8)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    head.add_slots(axes, labels, precision_thresholds=torch.full((6,), 0.8), support_thresholds=torch.full((6,), 0.85))
    model = SlotModel(Preprocessing("features", (8,)), head, class_names=["cat", "dog", "bird"])
    model.exemplar_features = near(axes).half()
    model.history.append(Generation(0, "fit", 6, {}))
    return model


def new_animals(count=12, seed=1):
    """Feature rows around the two axes that no slot of `three_animals` is near to."""
    return near(torch.eye(8)[6:], count=count, seed=seed).flatten(0, 1).numpy()


def with_overlap():
    """`three_animals` with a third cat slot between the first two, whose cap takes in part of theirs."""
    model = three_animals()
    between = normalize(torch.eye(8)[:1] + 0.6 * torch.eye(8)[1:2])
    model.head.add_slots(
        between,
        torch.tensor([0]),
        precision_thresholds=torch.tensor([0.8]),
        support_thresholds=torch.tensor([0.8]),
    )
    model.exemplar_features = torch.cat([model.exemplar_features, near(between).half()])
    return model


def mixture(n_classes, count, *, seed=0, feature=6, spread=0.18):
    """Feature rows around as many axes as classes, in random order, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_classes), count))
    rows = np.eye(feature)[labels] + spread * rng.normal(size=(len(labels), feature))
    return rows.astype(np.float32), labels
