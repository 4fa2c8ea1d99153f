"""Continual learners with a small network and a memory of examples: replay, DER++ and GDumb."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from slots.shapes import Ids

Rows = npt.NDArray[np.float32]
HIDDEN = 400

STEP = 10
"""Examples a step, and as many again from the memory."""

_RATE = 0.05
_EPOCHS = 15  # of GDumb
_BATCH = 32


class Memory:
    """Episodic memory: a fixed number of examples, kept by their places.

    Parameters
    ----------
    capacity, n_features : int
        Examples that fit (count, >= 0), and length of a row.
    in_bytes : bool
        Keep rows, which then must be multiples of 1/255, in one byte a feature.
    """

    def __init__(self, capacity: int, n_features: int, *, in_bytes: bool) -> None:
        self.rows = np.zeros((capacity, n_features), np.uint8 if in_bytes else np.float32)
        self.labels, self.filled = np.zeros(capacity, np.int64), 0

    def put(self, place: int, row: Rows, label: int) -> None:
        """Write an example over what stood there."""
        self.rows[place] = np.rint(row * 255) if self.rows.dtype == np.uint8 else row
        self.labels[place] = label
        self.filled = max(self.filled, place + 1)

    def get(self, places: Ids) -> tuple[Rows, Ids]:
        """Examples by their places."""
        rows = self.rows[places].astype(np.float32)
        return rows / np.float32(255) if self.rows.dtype == np.uint8 else rows, self.labels[places]

    @property
    def nbytes(self) -> int:
        """Bytes of rows and labels, a label counted as one byte."""
        return self.rows.nbytes + len(self.labels)


def make_network(n_features: int, n_classes: int, seed: int) -> nn.Sequential:
    """A perceptron with one hidden layer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))


def network_bytes(network: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(it.numel() * it.element_size() for it in network.parameters())


@torch.no_grad()
def answers(network: nn.Module, rows: Rows, come: npt.NDArray[np.bool_]) -> Ids:
    """Class of the largest output among those that have come."""
    logits = network(torch.from_numpy(rows))
    logits[:, ~torch.from_numpy(come)] = -torch.inf
    found: Ids = logits.argmax(1).numpy()
    return found


class Replay:
    """A network that rehearses a random sample of the past beside each new batch; with no memory, plain fine-tuning.

    Parameters
    ----------
    n_features, n_classes, capacity : int
        Length of a row, number of labels, and examples that are remembered (counts).
    in_bytes : bool
        Whether remembered rows are kept in one byte a feature; see `Memory`.
    seed : int
        Of the network's first weights and of what is remembered and rehearsed.

    Notes
    -----
    Chaudhry et al., "On tiny episodic memories in continual learning", 2019, with reservoir sampling (Vitter, 1985).
    """

    def __init__(self, n_features: int, n_classes: int, capacity: int, *, in_bytes: bool, seed: int) -> None:
        self.network = make_network(n_features, n_classes, seed)
        self.optimizer = torch.optim.SGD(self.network.parameters(), _RATE)
        self.memory = Memory(capacity, n_features, in_bytes=in_bytes)
        self.rng, self.seen = np.random.default_rng(seed), 0
        self.come = np.zeros(n_classes, bool)

    def learn(self, rows: Rows, labels: Ids) -> None:
        """One step for every ten examples."""
        self.come[labels] = True
        for i in range(0, len(rows), STEP):
            self._step(rows[i : i + STEP], labels[i : i + STEP])

    def predict(self, rows: Rows) -> Ids:
        """Answer of the network."""
        return answers(self.network, rows, self.come)

    @property
    def nbytes(self) -> int:
        """Bytes of memory and network."""
        return self.memory.nbytes + network_bytes(self.network)

    def _step(self, rows: Rows, labels: Ids) -> None:
        x, y = torch.from_numpy(rows), torch.from_numpy(labels)
        if self.memory.filled:
            more, more_labels = self.memory.get(self._places())
            x, y = torch.cat([x, torch.from_numpy(more)]), torch.cat([y, torch.from_numpy(more_labels)])
        self._descend(F.cross_entropy(self.network(x), y))
        self._keep(rows, labels)

    def _places(self) -> Ids:
        return np.asarray(self.rng.integers(self.memory.filled, size=STEP), np.int64)

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _keep(self, rows: Rows, labels: Ids) -> list[tuple[int, int]]:
        """Reservoir sampling; pairs of place in the memory and place in the batch."""
        kept = []
        capacity = len(self.memory.labels)
        for i in range(len(rows)):
            place = self.seen if self.seen < capacity else int(self.rng.integers(self.seen + 1))
            self.seen += 1
            if place < capacity:
                self.memory.put(place, rows[i], int(labels[i]))
                kept.append((place, i))
        return kept


class DarkReplay(Replay):
    """DER++: replay that also holds on to what the network said of its examples when it first saw them.

    Parameters
    ----------
    n_features, n_classes, capacity : int
        Length of a row, number of labels, and examples that are remembered (counts).
    in_bytes : bool
        Whether remembered rows are kept in one byte a feature; see `Memory`.
    seed : int
        Of the network's first weights and of what is remembered and rehearsed.
    alpha, beta : float, default 0.5
        Weight of the outputs and of the labels of the past.

    Notes
    -----
    DER++ of Buzzega et al., "Dark experience for general continual learning", 2020, algorithm 2.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        capacity: int,
        *,
        in_bytes: bool,
        seed: int,
        alpha: float = 0.5,
        beta: float = 0.5,
    ) -> None:
        super().__init__(n_features, n_classes, capacity, in_bytes=in_bytes, seed=seed)
        self.alpha, self.beta = alpha, beta
        self.outputs = np.zeros((capacity, n_classes), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, its outputs and network."""
        return super().nbytes + self.outputs.nbytes

    def _step(self, rows: Rows, labels: Ids) -> None:
        logits = self.network(torch.from_numpy(rows))
        loss = F.cross_entropy(logits, torch.from_numpy(labels))
        if self.memory.filled:
            places = self._places()
            past = self.network(torch.from_numpy(self.memory.get(places)[0]))
            loss = loss + self.alpha * F.mse_loss(past, torch.from_numpy(self.outputs[places]))
            again, again_labels = self.memory.get(self._places())
            past = self.network(torch.from_numpy(again))
            loss = loss + self.beta * F.cross_entropy(past, torch.from_numpy(again_labels))
        self._descend(loss)
        said = logits.detach().numpy()
        for place, i in self._keep(rows, labels):
            self.outputs[place] = said[i]


class GDumb:
    """A memory balanced by class, and a network trained on it from nothing whenever there is a question.

    Parameters
    ----------
    n_features, n_classes, capacity : int
        Length of a row, number of labels, and examples that are remembered (counts).
    in_bytes : bool
        Whether remembered rows are kept in one byte a feature; see `Memory`.
    seed : int
        Of the network's first weights, of what is remembered and of the order of training.

    Notes
    -----
    Prabhu, Torr and Dokania, "GDumb: a simple approach that questions our progress in continual learning", 2020,
    algorithm 1: a class that has less than its share replaces an example of the largest class.
    """

    def __init__(self, n_features: int, n_classes: int, capacity: int, *, in_bytes: bool, seed: int) -> None:
        self.memory = Memory(capacity, n_features, in_bytes=in_bytes)
        self.shape, self.seed = (n_features, n_classes), seed
        self.rng = np.random.default_rng(seed)
        self.counts = np.zeros(n_classes, np.int64)
        self.network: nn.Sequential | None = None

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Sample greedily."""
        self.network = None
        for row, label in zip(rows, labels.tolist(), strict=True):
            full = self.memory.filled == len(self.memory.labels)
            share = self.memory.filled / max(1, int((self.counts > 0).sum()) + (self.counts[label] == 0))
            if not full:
                place = self.memory.filled
            elif self.counts[label] < share and self.counts[label] < self.counts.max():
                largest = int(self.counts.argmax())
                place = int(self.rng.choice(np.flatnonzero(self.memory.labels == largest)))
                self.counts[largest] -= 1
            else:
                continue
            self.memory.put(place, row, label)
            self.counts[label] += 1

    def predict(self, rows: Rows) -> Ids:
        """Train on the memory, unless it is the same as before, and answer."""
        if self.network is None:
            self.network = self._train()
        return answers(self.network, rows, self.counts > 0)

    @property
    def nbytes(self) -> int:
        """Bytes of memory and network."""
        n_features, n_classes = self.shape
        return self.memory.nbytes + 4 * ((n_features + 1) * HIDDEN + (HIDDEN + 1) * n_classes)

    def _train(self) -> nn.Sequential:
        network = make_network(*self.shape, self.seed)
        optimizer = torch.optim.SGD(network.parameters(), _RATE, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
        rows, labels = self.memory.get(np.arange(self.memory.filled))
        x, y = torch.from_numpy(rows), torch.from_numpy(labels)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(_EPOCHS):
            for part in torch.randperm(len(x), generator=generator).split(_BATCH):
                optimizer.zero_grad()
                F.cross_entropy(network(x[part]), y[part]).backward()
                optimizer.step()
            schedule.step()
        return network
