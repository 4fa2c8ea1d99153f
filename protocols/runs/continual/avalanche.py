"""The nearest of all examples, and strategies of Avalanche."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset

from protocols.runs.continual.replay import STEP, Memory, answers, make_network, network_bytes
from slots.shapes import Ids

Rows = npt.NDArray[np.float32]
_BLOCK = 2000
_AVALANCHE_MEMORY = 500
_AVALANCHE_RATE = 0.05


class NearestNeighbour:
    """The label of the most similar of all examples, by cosine: one product with all.

    Parameters
    ----------
    n_features : int
        Length of a row.
    in_bytes : bool
        Whether a row is counted as one byte a feature.
    """

    def __init__(self, n_features: int, *, in_bytes: bool) -> None:
        self.blocks: list[Memory] = []
        self.in_bytes, self.n_features = in_bytes, n_features

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Keep all, in blocks of a few thousand."""
        for row, label in zip(rows, labels.tolist(), strict=True):
            if not self.blocks or self.blocks[-1].filled == _BLOCK:
                self.blocks.append(Memory(_BLOCK, self.n_features, in_bytes=self.in_bytes))
            self.blocks[-1].put(self.blocks[-1].filled, row, label)

    def predict(self, rows: Rows) -> Ids:
        """Label of the nearest; ties to the example that came first."""
        asked = _unit(rows)
        best, found = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int64)
        for block in self.blocks:
            known, labels = block.get(np.arange(block.filled))
            scores = asked @ _unit(known).T
            nearest = scores.argmax(1)
            top = scores[np.arange(len(rows)), nearest]
            better = top > best
            best[better], found[better] = top[better], labels[nearest[better]]
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all examples, room that is not used yet left aside."""
        return sum(block.nbytes * block.filled // _BLOCK for block in self.blocks)


class AvalancheLearner:
    """A strategy of Avalanche on the network of the other peers; a part is learned when the next question comes.

    Parameters
    ----------
    name : {"Naive", "Replay"}
        The strategy: no memory, or a memory that is rehearsed.
    n_features, n_classes : int
        Length of a row, and number of labels that may come.
    seed : int
        Of the network's first weights.

    Notes
    -----
    Lomonaco et al., "Avalanche: an end-to-end library for continual learning", 2021. One epoch a part, steps of ten,
    a memory of 500.
    """

    def __init__(self, name: str, n_features: int, n_classes: int, *, seed: int) -> None:
        self.network = make_network(n_features, n_classes, seed)
        memory = {"mem_size": _AVALANCHE_MEMORY} if name == "Replay" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports, and that it logs nothing
            import avalanche.training.supervised as strategies

            self.strategy: Any = getattr(strategies, name)(
                model=self.network,
                optimizer=torch.optim.SGD(self.network.parameters(), _AVALANCHE_RATE),
                criterion=nn.CrossEntropyLoss(),
                train_mb_size=STEP,
                train_epochs=1,
                evaluator=None,
                **memory,
            )
        self.kept = _AVALANCHE_MEMORY * n_features * 4 if memory else 0
        self.parts: list[tuple[Rows, Ids]] = []
        self.come = np.zeros(n_classes, bool)

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Gather the part."""
        self.parts.append((rows, labels))
        self.come[labels] = True

    def predict(self, rows: Rows) -> Ids:
        """Train on what was gathered, as one experience, and answer."""
        if self.parts:
            self._train()
        self.network.eval()
        return answers(self.network, rows, self.come)

    @property
    def nbytes(self) -> int:
        """Bytes of memory and network; not of the part that is being gathered."""
        return self.kept + network_bytes(self.network)

    def _train(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from avalanche.benchmarks import benchmark_from_datasets
            from avalanche.benchmarks.utils import as_classification_dataset

            rows, labels = (np.concatenate(it) for it in zip(*self.parts, strict=True))
            part = as_classification_dataset(_Part(rows, labels))
            self.strategy.train(next(iter(benchmark_from_datasets(train=[part]).train_stream)))
        self.parts = []


class _Part(Dataset[tuple[torch.Tensor, int]]):
    """Rows and labels in the form that Avalanche reads."""

    def __init__(self, rows: Rows, labels: Ids) -> None:
        self.rows, self.targets = torch.from_numpy(rows), labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.rows[place], self.targets[place]


def _unit(rows: Rows) -> Rows:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)
