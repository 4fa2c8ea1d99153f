"""What groups of processes find, for comparison with one process."""

import numpy as np
import torch

from slots.closing import ClosingConfig
from slots.cover.distributed import class_cover_over_ranks
from slots.cover.parallel import greedy_rounds
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.training import AutoConfig, TrainConfig, fit
from slots.training.distributed.class_shard import divides_exactly

COVERS = {"even": (120, 3, 5), "wide": (90, 7, 40), "lattice": (150, 4, 3), "twins": (64, 2, 4), "few": (3, 2, 3)}


GREEDY, PIECES = 12, 23


def rows(name):
    """Float32 features and labels: clusters, or points of a lattice with many equal cosines and contradictions."""
    n, classes, width = COVERS[name]
    rng = np.random.default_rng(len(name))
    y = rng.integers(0, classes, n)
    if name == "lattice":
        x = rng.integers(-1, 2, (n, width)).astype(np.float32)
    else:
        x = (rng.normal(size=(classes, width))[y] + rng.normal(size=(n, width))).astype(np.float32)
    if name == "twins":
        x[1::2] = x[::2]
    return torch.from_numpy(x), torch.from_numpy(y)


def pairs(seed):
    """Candidates and examples at random, denser for some candidates."""
    rng = np.random.default_rng(seed)
    n_candidates, n_examples = rng.integers(1, 30), rng.integers(1, 90)
    return rng.random((n_candidates, n_examples)) < rng.random((n_candidates, 1)) ** 2


def shares(n, size, seed):
    """Where the rows of each process end; some processes have none."""
    rng = np.random.default_rng([n, size, seed])
    return np.array([0, *np.sort(rng.integers(0, n + 1, size - 1)), n])


FITS = {
    "views": TrainConfig(
        epochs=2, batch_size=40, slots_per_class=16, views="flip", augment="shift1", margin=0.01, label_smoothing=0.1,
        closing=ClosingConfig(reach=0.9),
    ),
    "rare": TrainConfig(epochs=2, batch_size=60, slots_per_class=3, whitening=0.3),
    "grown": TrainConfig(epochs=3, batch_size=80, slots_per_class=0, precision=0.98),
    "full": TrainConfig(epochs=1, slots_per_class=12, closing=ClosingConfig(mode="full")),
    "looked": AutoConfig(TrainConfig(epochs=3), frozenset({"epochs", "slots_per_class", "whitening", "scale"})),
}  # fmt: skip
"""Trained by class (views, full), where too few slots are one process's (rare), with growth, and as features are."""


def fit_data(name):
    """Small images in two views, or feature rows with a rare class."""
    rng = np.random.default_rng(5)
    n, classes = 200, 4
    y = np.sort(rng.integers(0, classes, n))
    if name == "rare":
        y[y == 1] = np.where(rng.random((y == 1).sum()) < 0.8, 2, 1)
    x = rng.normal(size=(classes, 48))[y] + 0.7 * rng.normal(size=(n, 48))
    if name == "views":
        return (np.clip(128 + 40 * x, 0, 255)).astype(np.uint8).reshape(n, 6, 8), y
    return x.astype(np.float32), y


def fitted(name, **options):
    """All tensors of a fitted model, and its losses."""
    x, y = fit_data(name)
    backbone = torch.nn.Flatten() if name == "views" else None
    model, result = fit(x, y, backbone=backbone, config=FITS[name], **options)
    novelty = {} if model.novelty is None else model.novelty.state()[0]
    tensors = {**model.head.state_dict(), **novelty, "exemplars": model.exemplar_features, **model.rehearsal.state()}
    return {key: value.numpy() for key, value in tensors.items()} | {"losses": np.array(result.losses)}


def grid(per_class):
    """A head of four classes."""
    head = IncrementalNeuralHashing(48)
    rows = np.random.default_rng(0).normal(size=(4 * per_class, 48)).astype(np.float32)
    head.add_slots(normalize(torch.from_numpy(rows)), torch.arange(4).repeat_interleave(per_class))
    return head


def warm():
    """What the cases import and compile, once for all forks."""
    for name in ("views", "full", "looked"):
        fitted(name)


def cases(ranks):
    for seed in range(GREEDY):
        covers = pairs(seed)
        ends = shares(covers.shape[1], ranks.size, seed)
        mine = torch.from_numpy(covers[:, ends[ranks.rank] : ends[ranks.rank + 1]])
        candidate, example = mine.nonzero(as_tuple=True)
        picks, gains = greedy_rounds(
            candidate, example, n_candidates=len(covers), n_examples=mine.shape[1], min_gain=1 + seed % 3, ranks=ranks
        )
        yield f"greedy{seed}", {"picks": picks.numpy(), "gains": gains.numpy()}
    for name in COVERS:
        x, y = rows(name)
        ends = shares(len(x), ranks.size, 0)
        here = slice(ends[ranks.rank], ends[ranks.rank + 1])
        found = class_cover_over_ranks(x[here], y[here], ranks, piece=17, min_gain=1 + (name == "even"))
        yield f"cover-{name}", {key: value.numpy() for key, value in vars(found).items()}
    mine = []
    found = ranks.each(range(PIECES), lambda it: (torch.tensor(it**2), torch.tensor(mine.append(it) or it)))
    yield "each", {"values": np.array([int(it[0]) for it in found]), "mine": np.array(mine)}
    divided = {str(per_class): divides_exactly(grid(per_class), [(40, 2), (30, 2)], ranks) for per_class in (16, 1)}
    yield "divided", {key: np.array(value) for key, value in divided.items()}
    for name in FITS:
        yield f"fit-{name}", fitted(name, ranks=ranks)
