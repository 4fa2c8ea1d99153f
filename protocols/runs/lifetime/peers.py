"""What people would build instead: nearest neighbours, a classifier refitted each night, a network with replay."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from protocols.harness.encoders import Features
from protocols.runs.lifetime.contenders import FALSE_ALARMS, Evening, Said, held_out_share
from protocols.runs.lifetime.labelling import Labeller
from slots.shapes import Ids

Scores = npt.NDArray[np.float64]

_NEIGHBOURS = 5


class Refitted(ABC):
    """Keeps the labelled rows, and learns them anew each night.

    A part of the start is held out: each night it sets the threshold above which an input is called novel.

    Parameters
    ----------
    seed : int
        Of what is held out, and of all that is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 13])
        self.held_out = np.zeros((0, 0), np.float32)
        self.rows: list[Features] = []
        self.labels: list[Ids] = []
        self.of_day: list[int] = []
        self.threshold = np.inf

    def start(self, rows: Features, labels: Ids) -> None:
        """Learn what is known at the start."""
        order = self.rng.permutation(len(rows))
        n = round(held_out_share(len(rows)) * len(rows))
        self.held_out = rows[order[:n]]
        self._add(0, rows[order[n:]], labels[order[n:]])
        self._learn()

    def stream(self, _day: int, rows: Features) -> Said:
        """Answer a day's inputs."""
        return self.answer(rows)

    def answer(self, rows: Features) -> Said:
        """Answer, and call novel what scores above the threshold."""
        labels, scores = self.judge(rows)
        return Said(labels, scores > self.threshold)

    def evening(self, day: int, rows: Features, labeller: Labeller) -> Evening:
        """Ask about the chosen inputs and refit."""
        started = time.perf_counter()
        chosen = self.choose(rows, labeller.left)
        asked = time.perf_counter()
        self._add(day, rows[chosen], np.array([labeller.ask(day, int(it)) for it in chosen], np.int64))
        self._learn()
        return Evening(asked - started, time.perf_counter() - asked)

    def take_back(self, day: int) -> None:
        """Leave out the labels of a day and refit."""
        left = [place for place, it in enumerate(self.of_day) if it != day]
        self.rows, self.labels = [self.rows[it] for it in left], [self.labels[it] for it in left]
        self.of_day = [self.of_day[it] for it in left]
        self._learn()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the labelled rows and of those held out."""
        return sum(it.nbytes for it in (*self.rows, self.held_out)) + sum(it.nbytes for it in self.labels)

    def close(self) -> None:
        """Let go of the rows."""
        self.rows, self.labels, self.of_day = [], [], []

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what answers."""

    @abstractmethod
    def fit(self, rows: Features, labels: Ids) -> None:
        """Learn all labelled rows."""

    @abstractmethod
    def judge(self, rows: Features) -> tuple[Ids, Scores]:
        """Class of each row, and how novel it is: higher is more novel."""

    def choose(self, rows: Features, n: int) -> Ids:
        """Rows to ask about; by default at random."""
        return self.rng.permutation(len(rows))[:n]

    def _add(self, day: int, rows: Features, labels: Ids) -> None:
        self.rows.append(rows)
        self.labels.append(labels)
        self.of_day.append(day)

    def _learn(self) -> None:
        self.fit(np.concatenate(self.rows), np.concatenate(self.labels))
        self.threshold = float(np.quantile(self.judge(self.held_out)[1], 1 - FALSE_ALARMS))


class VectorIndex(Refitted):
    """The five nearest labelled rows by cosine vote, the nearer the more; random rows are labelled.

    With FAISS where it is installed, else with scikit-learn: both are exact. An input is as novel as the fifth
    neighbour is far.
    """

    def fit(self, rows: Features, labels: Ids) -> None:
        """Fill the index anew."""
        self.known, self.unit = labels, _unit(rows)
        try:
            import faiss
        except ImportError:
            self.index, self.trees = None, NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(self.unit)
        else:
            self.index = faiss.IndexFlatIP(rows.shape[1])
            self.index.add(self.unit)

    def judge(self, rows: Features) -> tuple[Ids, Scores]:
        """The class of most weight among the neighbours."""
        if self.index is not None:
            near, places = self.index.search(_unit(rows), _NEIGHBOURS)
        else:
            distances, places = self.trees.kneighbors(_unit(rows))
            near = 1 - distances**2 / 2
        classes = np.unique(self.known)
        votes = np.zeros((len(rows), len(classes)))
        weights = 1 / np.maximum(1e-6, 1 - near)
        for one in range(near.shape[1]):
            votes[np.arange(len(rows)), np.searchsorted(classes, self.known[places[:, one]])] += weights[:, one]
        return classes[votes.argmax(1)], 1 - near[:, -1].astype(np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return int(self.unit.nbytes + self.known.nbytes)


class NightlyRegression(Refitted):
    """Logistic regression refitted each night, classes weighed alike; the smallest margins are labelled.

    An input is novel where its energy is high: the negative logarithm of the sum of the exponentials of all outputs
    (Liu et al., "Energy-based out-of-distribution detection", 2020).
    """

    def fit(self, rows: Features, labels: Ids) -> None:
        """Fit from nothing."""
        self.middle, self.scale = rows.mean(0), float(rows.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what has not converged yet
            self.model = LogisticRegression(class_weight="balanced", max_iter=100, tol=1e-3)
            self.model.fit(self._scaled(rows), labels)

    def judge(self, rows: Features) -> tuple[Ids, Scores]:
        """The class of the largest output."""
        outputs = self._outputs(rows)
        top = outputs.max(1)
        energy = -(top + np.log(np.exp(outputs - top[:, None]).sum(1)))
        return np.asarray(self.model.classes_[outputs.argmax(1)], np.int64), energy

    def choose(self, rows: Features, n: int) -> Ids:
        """Where the first two classes are closest."""
        best = np.sort(self._outputs(rows), 1)
        return np.argsort(best[:, -1] - best[:, -2], kind="stable")[:n]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return int(self.model.coef_.nbytes + self.model.intercept_.nbytes)

    def _scaled(self, rows: Features) -> Features:
        return np.asarray((rows - self.middle) / self.scale, np.float32)

    def _outputs(self, rows: Features) -> Scores:
        found = self.model.decision_function(self._scaled(rows))
        return np.stack([-found, found], 1) if found.ndim == 1 else np.asarray(found)


def _unit(rows: Features) -> Features:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(length > 0, length, 1), np.float32)
