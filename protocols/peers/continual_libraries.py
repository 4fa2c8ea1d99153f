"""Continual learners from libraries: scikit-learn's neighbours and Avalanche."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocols.peers.continual_replay import STEP, Memory, answers, make_network, network_bytes

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_AVALANCHE_MEMORY = 500
_AVALANCHE_RATE = 0.05


class NearestNeighbour:
    """The label of the most similar of all examples, by cosine (scikit-learn, by brute force).

    Parameters
    ----------
    n_features : int
    in_bytes : bool
        Whether a row is counted as one byte a feature.
    """

    def __init__(self, n_features: int, *, in_bytes: bool) -> None:
        self.blocks: list[Memory] = []
        self.in_bytes, self.n_features = in_bytes, n_features

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Keep all."""
        block = Memory(len(rows), self.n_features, in_bytes=self.in_bytes)
        for place, (row, label) in enumerate(zip(rows, labels.tolist(), strict=True)):
            block.put(place, row, label)
        self.blocks.append(block)

    def predict(self, rows: Rows) -> Ids:
        """Label of the nearest; ties to the example that came first."""
        from sklearn.neighbors import KNeighborsClassifier

        parts = [block.get(np.arange(block.filled)) for block in self.blocks]
        known, labels = (np.concatenate(it) for it in zip(*parts, strict=True))
        found = KNeighborsClassifier(1, algorithm="brute").fit(_unit(known), labels).predict(_unit(rows))
        return np.asarray(found, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all examples."""
        return sum(block.nbytes for block in self.blocks)


class AvalancheLearner:
    """A strategy of Avalanche on the network of the other peers; a part is learned when the next question comes.

    Parameters
    ----------
    name : {"Naive", "Replay"}
    n_features, n_classes : int
    seed : int

    Notes
    -----
    Lomonaco et al., "Avalanche: an end-to-end library for continual learning", 2021. One epoch a part, steps of ten,
    a memory of 500.
    """

    def __init__(self, name: str, n_features: int, n_classes: int, *, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            import avalanche.training.supervised as strategies

        self.network = make_network(n_features, n_classes, seed)
        memory = {"mem_size": _AVALANCHE_MEMORY} if name == "Replay" else {}
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
            from avalanche.benchmarks.utils import make_tensor_classification_dataset

            rows, labels = (np.concatenate(it) for it in zip(*self.parts, strict=True))
            tensors = torch.from_numpy(rows), torch.from_numpy(labels)
            data = make_tensor_classification_dataset(*tensors, task_labels=[0] * len(labels))
            experience = next(iter(benchmark_from_datasets(train=[data]).train_stream))
            self.strategy.train(experience)
        self.parts = []


def _unit(rows: Rows) -> Rows:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Rows = rows / np.where(length > 0, length, 1)
    return found
