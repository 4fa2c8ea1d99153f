"""A network that is trained on and rehearses a random sample of the past: what continual-learning libraries offer."""

from __future__ import annotations

import copy
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from protocols.harness.encoders import Features
from protocols.runs.lifetime.contenders import FALSE_ALARMS, Evening, Said, held_out_share
from protocols.runs.lifetime.labelling import Labeller
from slots.shapes import Ids

MEMORY = 500
"""Examples that are remembered."""

_HIDDEN, _RATE, _STEP = 400, 0.05, 10
_START_EPOCHS, _EPOCHS = 10, 10


class ReplayNetwork:
    """A perceptron with one hidden layer; steps of ten new examples and ten from a reservoir; random rows are labelled.

    It goes on from the weights of the day before, and keeps those for one step back. An input is novel where its energy
    is high, by a part of the start that was held out.

    Parameters
    ----------
    n_classes : int
        How many there will be: its last layer has an output for each, and one for junk.
    seed : int
        Of the first weights, of what is remembered and what is asked.

    Notes
    -----
    Chaudhry et al., "On tiny episodic memories in continual learning", 2019, with reservoir sampling (Vitter, 1985);
    ten passes over the start and over each day's labels.
    """

    def __init__(self, n_classes: int, seed: int) -> None:
        self.rng, self.n_classes = np.random.default_rng([seed, 17]), n_classes
        self.generator = torch.Generator().manual_seed(seed)
        self.come = np.zeros(n_classes + 1, bool)  # the last output is junk's
        self.seen, self.filled = 0, 0
        self.before: ReplayNetwork | None = None

    def start(self, rows: Features, labels: Ids) -> None:
        """Train on what is known at the start."""
        order = self.rng.permutation(len(rows))
        n = round(held_out_share(len(rows)) * len(rows))
        self.held_out, kept = rows[order[:n]], order[n:]
        self.middle, self.scale = rows[kept].mean(0), float(rows[kept].std()) or 1.0
        with torch.random.fork_rng():
            torch.manual_seed(int(self.rng.integers(2**31)))
            self.network = nn.Sequential(
                nn.Linear(rows.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, self.n_classes + 1)
            )
        self.memory = np.zeros((MEMORY, rows.shape[1]), np.float32)
        self.memory_labels = np.zeros(MEMORY, np.int64)
        self._train(rows[kept], labels[kept], _START_EPOCHS)

    def stream(self, _day: int, rows: Features) -> Said:
        """Answer a day's inputs."""
        return self.answer(rows)

    def answer(self, rows: Features) -> Said:
        """The largest output of what has come; novel by the energy."""
        outputs = self._outputs(rows)
        labels = outputs.argmax(1)
        return Said(np.where(labels == self.n_classes, -1, labels), _energy(outputs) > self.threshold)

    def evening(self, day: int, rows: Features, labeller: Labeller) -> Evening:
        """Ask about random inputs and train on them."""
        started = time.perf_counter()
        chosen = self.rng.permutation(len(rows))[: labeller.left]
        said = np.array([labeller.ask(day, int(it)) for it in chosen], np.int64)
        self.before = None
        self.before = copy.deepcopy(self)
        self._train(rows[chosen], said, _EPOCHS)
        return Evening(0.0, time.perf_counter() - started)

    def take_back(self, _day: int) -> None:
        """Go back to the weights and the memory of the day before."""
        assert self.before is not None
        rng = self.rng  # what is asked next is drawn anew
        self.__dict__.update(self.before.__dict__)
        self.rng = rng

    @property
    def nbytes(self) -> int:
        """Bytes of the network."""
        return sum(it.numel() * it.element_size() for it in self.network.parameters())

    @property
    def kept_bytes(self) -> int:
        """Bytes of the network, of the one before it, and of the memory of each."""
        return 2 * (self.nbytes + self.memory.nbytes) + self.held_out.nbytes

    def close(self) -> None:
        """Let go of the network of the day before."""
        self.before = None

    def _train(self, rows: Features, labels: Ids, epochs: int) -> None:
        targets = np.where(labels < 0, self.n_classes, labels)
        self.come[targets] = True
        optimizer = torch.optim.SGD(self.network.parameters(), _RATE)
        x, y = self._tensor(rows), torch.from_numpy(targets)
        for _ in range(epochs):
            for places in torch.randperm(len(x), generator=self.generator).split(_STEP):
                inputs, wanted = x[places], y[places]
                if self.filled:
                    again = self.rng.integers(self.filled, size=_STEP)
                    inputs = torch.cat([inputs, self._tensor(self.memory[again])])
                    wanted = torch.cat([wanted, torch.from_numpy(self.memory_labels[again])])
                optimizer.zero_grad()
                F.cross_entropy(self.network(inputs), wanted).backward()
                optimizer.step()
        self._remember(rows, targets)
        self.threshold = float(np.quantile(_energy(self._outputs(self.held_out)), 1 - FALSE_ALARMS))

    def _remember(self, rows: Features, targets: Ids) -> None:
        """Reservoir sampling."""
        for row, target in zip(rows, targets.tolist(), strict=True):
            place = self.seen if self.seen < MEMORY else int(self.rng.integers(self.seen + 1))
            self.seen += 1
            if place < MEMORY:
                self.memory[place], self.memory_labels[place] = row, target
                self.filled = max(self.filled, place + 1)

    def _tensor(self, rows: Features) -> torch.Tensor:
        return torch.from_numpy(np.asarray((rows - self.middle) / self.scale, np.float32))

    @torch.no_grad()
    def _outputs(self, rows: Features) -> npt.NDArray[np.float64]:
        outputs = self.network(self._tensor(rows)).double().numpy()
        outputs[:, ~self.come] = -np.inf
        return np.asarray(outputs)


def _energy(outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    top = outputs.max(1)
    found: npt.NDArray[np.float64] = -(top + np.log(np.exp(outputs - top[:, None]).sum(1)))
    return found
