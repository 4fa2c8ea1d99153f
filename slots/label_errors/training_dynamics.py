"""Training dynamics of a classifier on a label set: which labels are learned late, or never."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.deprecation import renamed
from slots.errors import UsageError
from slots.features.preprocessing import Preprocessing
from slots.features.views import parse_views
from slots.label_errors.one_cycle import OneCycleAdam
from slots.progress import Progress
from slots.shapes import RawInputs
from slots.training.backbone_hooks import constrain, schedule

_FEWEST_STEPS = 1500
_MOST_EPOCHS = 20


@dataclass(frozen=True)
class TrainingDynamicsConfig:
    """How the network is trained whose dynamics are recorded.

    Parameters
    ----------
    epochs : int, optional
        Default: 6, on small data as many as make 1,500 steps, at most 20. More would memorise wrong labels.
    batch_size : int, optional
        Default: 128, on small data a hundredth of it, at least 16.
    learning_rate : float, default 3e-3
        Peak of the one-cycle rate (Adam).
    augment : str, optional
        Random changes of images (`slots.features.parse_views`). Default: shifts by up to 1/14 of the shorter side.
    seed : int, default 0
        Of the linear layer, the order of the examples and the augmentation.
    device : str, default "cpu"
        Where the network is trained, as torch names it.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 3e-3
    augment: str | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 2:
            raise UsageError(f"`epochs` must be >= 2, got {self.epochs}. The first half is not watched.")
        if self.batch_size is not None and self.batch_size < 2:
            raise UsageError(f"`batch_size` must be >= 2, got {self.batch_size}. Try 128.")

    def sizes(self, n: int) -> tuple[int, int]:
        """Epochs and batches an epoch for ``n`` examples."""
        batch = self.batch_size or min(128, max(16, n // 100))
        batches = max(1, n // batch)
        return self.epochs or min(_MOST_EPOCHS, max(6, -(-_FEWEST_STEPS // batches))), batches


@dataclass(frozen=True)
class TrainingDynamics:
    """Training dynamics: what a network answered while it was trained, and the network.

    Parameters
    ----------
    log_probabilities : float64 array of shape (example, class)
        Mean over the second half of the epochs, each noted before the step that used the example; normalised.
    classifier : nn.Module
        The network followed by its linear layer, in evaluation mode: from preprocessed inputs to class scores.
    """

    log_probabilities: npt.NDArray[np.float64]
    classifier: nn.Module


@renamed(report="progress")
def record_training_dynamics(
    network: nn.Module,
    x: RawInputs,
    y: npt.NDArray[np.int64],
    *,
    preprocessing: Preprocessing | None = None,
    config: TrainingDynamicsConfig | None = None,
    progress: Progress | None = None,
) -> TrainingDynamics:
    """Train a network with a linear classifier and record its answers, each before the step that uses its label.

    Parameters
    ----------
    network : nn.Module
        Trained in place; in evaluation mode afterwards.
    x : array of shape (example, ...)
        uint8 images or float feature rows.
    y : int64 array of shape (example,)
        From 0 to the number of classes - 1.
    preprocessing, config, progress
        As in `find_label_errors`.

    Returns
    -------
    TrainingDynamics
    """
    config = config or TrainingDynamicsConfig()
    preprocessing = preprocessing or Preprocessing.of(x)
    preprocessing.check(x)
    progress = progress or (lambda _step, _share: None)
    epochs, batches = config.sizes(len(x))
    torch.manual_seed(config.seed)
    network.to(config.device).eval()
    with torch.no_grad():
        width = int(network(preprocessing(x[:2], config.device)).shape[-1])
    both = nn.Sequential(network, nn.Linear(width, int(y.max()) + 1).to(config.device))
    both.to(memory_format=torch.channels_last)  # convolutions of few channels: a third less time on a CPU
    trained = [parameter for parameter in both.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, config.learning_rate, epochs * batches)
    targets = torch.from_numpy(y).to(config.device)
    noted = torch.zeros(len(x), int(y.max()) + 1, dtype=torch.float64)
    draw = _Draw(config, preprocessing)
    for epoch in range(epochs):
        both.train()
        order = draw.rng.permutation(len(x))
        for place, rows in enumerate(np.array_split(order, batches)):
            schedule(network, (epoch + place / batches) / epochs)
            logits = both(draw(x[rows]))
            if epoch >= epochs // 2:
                noted[torch.from_numpy(rows)] += logits.detach().double().log_softmax(1).cpu()
            optimizer.zero_grad()
            functional.cross_entropy(logits, targets[torch.from_numpy(rows).to(targets.device)]).backward()
            optimizer.step()
            constrain(network)
            if place % 20 == 0:
                progress("watching the training", (epoch + place / batches) / epochs)
    schedule(network, 1.0)
    return TrainingDynamics((noted / (epochs - epochs // 2)).log_softmax(1).numpy(), both.eval())


def small_network(width: int, *, hidden: int = 256) -> nn.Module:
    """What learns on feature rows or on a frozen network: standardised features and one hidden layer.

    Parameters
    ----------
    width : int
        Features of a row, >= 1.
    hidden : int, default 256
        Units of the hidden layer, >= 1.
    """
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(width, affine=False), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2)
    )


def _optimizer(trained: list[nn.Parameter], rate: float, total_steps: int) -> OneCycleAdam | _TorchOneCycle:
    if all(it.device.type in {"cpu", "cuda"} for it in trained):
        return OneCycleAdam(trained, rate, total_steps)
    return _TorchOneCycle(trained, rate, total_steps)


class _TorchOneCycle:
    """The same by torch, for devices that have no such kernel."""

    def __init__(self, trained: list[nn.Parameter], rate: float, total_steps: int) -> None:
        self._adam = torch.optim.Adam(trained, rate)
        self._rate = torch.optim.lr_scheduler.OneCycleLR(self._adam, rate, total_steps=total_steps)
        self.zero_grad = self._adam.zero_grad

    def step(self) -> None:
        self._adam.step()
        self._rate.step()


class _Draw:
    """From raw rows to a batch that chance has changed."""

    def __init__(self, config: TrainingDynamicsConfig, preprocessing: Preprocessing) -> None:
        spec = config.augment
        if spec is None:
            side = min(preprocessing.shape[1:], default=0)
            spec = f"shift{max(1, side // 14)}" if side >= 4 else "none"
        self._augment = parse_views(spec)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._preprocessing, self._device = preprocessing, config.device
        self.rng = np.random.default_rng(config.seed)

    def __call__(self, rows: RawInputs) -> Tensor:
        inputs = self._preprocessing(rows, self._device)
        return self._augment.sample(inputs, self._generator) if self._augment.n_views > 1 else inputs
