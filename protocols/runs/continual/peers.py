"""Continual learners that others made: which there are, and what all of them can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from protocols.runs.continual.avalanche import AvalancheLearner, NearestNeighbour
from protocols.runs.continual.replay import DarkReplay, GDumb, Replay
from protocols.runs.continual.streaming_statistics import NearestMean, RandomRidge, StreamingLDA
from slots.errors import UsageError
from slots.shapes import Ids

Rows = npt.NDArray[np.float32]


class Learner(Protocol):
    """Learns from a stream in one pass and answers at any time."""

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Take the next examples; labels number the classes from 0."""

    def predict(self, rows: Rows) -> Ids:
        """Class of each row, among those that have come."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that it keeps between calls."""


@dataclass(frozen=True)
class StreamFacts:
    """What a peer is told before the stream begins.

    Parameters
    ----------
    n_features, n_classes, n_examples : int
        Length of a row, number of labels, and number of training examples in the whole stream.
    images_in_bytes : bool
        Whether rows are pixels, which fit in one byte each without loss.
    seed : int
        Of everything that a peer draws.
    """

    n_features: int
    n_classes: int
    n_examples: int
    images_in_bytes: bool
    seed: int


@dataclass(frozen=True)
class ContinualPeer:
    """A continual learner to compare with, by its name in the table.

    Parameters
    ----------
    method : str
        As the table names it.
    make : callable
        From the facts to a learner that knows nothing.
    note : str
        One sentence that a reader needs to compare fairly; empty for none.
    """

    method: str
    make: Callable[[StreamFacts], Learner]
    note: str = ""


_TOLD = "Told the number of classes beforehand."

CONTINUAL_PEERS: Final[Mapping[str, tuple[ContinualPeer, ...]]] = {
    "naive": (ContinualPeer("fine-tuning, naive", lambda it: _replay(it, 0), _TOLD),),
    "ncm": (ContinualPeer("nearest class mean", lambda it: NearestMean(it.n_features)),),
    "slda": (ContinualPeer("streaming LDA", lambda it: StreamingLDA(it.n_features)),),
    "replay": (
        ContinualPeer("experience replay, 500", lambda it: _replay(it, 500), _TOLD),
        ContinualPeer("experience replay, 5,000", lambda it: _replay(it, 5000), _TOLD),
    ),
    "derpp": (
        ContinualPeer(
            "DER++, 500",
            lambda it: DarkReplay(it.n_features, it.n_classes, 500, in_bytes=it.images_in_bytes, seed=it.seed),
            _TOLD,
        ),
    ),
    "gdumb": (
        ContinualPeer("GDumb, 500", lambda it: _gdumb(it, 500), "Trains anew whenever it is asked."),
        ContinualPeer("GDumb, 5,000", lambda it: _gdumb(it, 5000), "Trains anew whenever it is asked."),
    ),
    "rp_ridge": (
        ContinualPeer("random projection 2,000 + ridge", lambda it: RandomRidge(it.n_features, 2000, seed=it.seed)),
    ),
    "nearest": (
        ContinualPeer(
            "1-NN on everything",
            lambda it: NearestNeighbour(it.n_features, in_bytes=it.images_in_bytes),
            "Keeps every example.",
        ),
    ),
    "avalanche": tuple(
        ContinualPeer(
            f"{name} (Avalanche)",
            lambda it, name=name: AvalancheLearner(name, it.n_features, it.n_classes, seed=it.seed),  # type: ignore[misc]
            "Told the number of classes beforehand, and where a part ends.",
        )
        for name in ("Naive", "Replay")
    ),
}
"""Short name to the methods that it stands for."""


def find_peers(name: str) -> tuple[ContinualPeer, ...]:
    """The methods of a short name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in CONTINUAL_PEERS:
        raise UsageError(f"`peers` must be some of {', '.join(CONTINUAL_PEERS)}, got {name!r}. Leave it out for all.")
    return CONTINUAL_PEERS[name]


def _replay(it: StreamFacts, capacity: int) -> Learner:
    return Replay(it.n_features, it.n_classes, capacity, in_bytes=it.images_in_bytes, seed=it.seed)


def _gdumb(it: StreamFacts, capacity: int) -> Learner:
    return GDumb(it.n_features, it.n_classes, capacity, in_bytes=it.images_in_bytes, seed=it.seed)
