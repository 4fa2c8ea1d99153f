"""Which labels are wrong: one training run is watched, and each label is held against what was expected before.

A network is trained once, on the labels as they are. In each step its answer to an example is noted *before* it learns
from that example's label, so that the answer is the others' verdict and costs nothing. The noted answers of the second
half of the training, the noise matrix that the surest of them show, and Bayes' rule give each label a suspicion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.errors import DataError, UsageError
from slots.features.preprocessing import Preprocessing, RawInputs
from slots.features.views import parse_views
from slots.label_errors.noise_matrix import anchor_counts, given_true, noise_matrix
from slots.labels import check_labels
from slots.progress import Progress
from slots.training.backbone_hooks import constrain, schedule

_FEWEST_STEPS = 1500
_MOST_EPOCHS = 20


@dataclass(frozen=True)
class WatchConfig:
    """How the watched network is trained.

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
    device : str, default "cpu"
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
class Watched:
    """A network that was trained, and what it answered meanwhile.

    Parameters
    ----------
    log_probabilities : float64 array of shape (example, class)
        Mean over the second half of the epochs, each noted before the step that used the example; normalised.
    classifier : nn.Module
        The network followed by its linear layer, in evaluation mode: from preprocessed inputs to class scores.
    """

    log_probabilities: npt.NDArray[np.float64]
    classifier: nn.Module


@dataclass(frozen=True)
class LabelErrors:
    """What was found about every label.

    Parameters
    ----------
    suspicion : float64 array of shape (example,)
        Higher = more likely wrong, in [0, 1]: to rank by. It is too low for sure errors, since the watched network
        has learned how often labels are wrong.
    suggested : int64 array of shape (example,)
        The most likely other label.
    noise : float64 array of shape (label, label)
        Chance of each given label (column) for each true one (row), in the order of ``labels``.
    labels : int64 array of shape (label,)
        All labels that occur, ascending.
    n_errors : int
        How many labels are wrong, by the noise matrix.
    """

    suspicion: npt.NDArray[np.float64]
    suggested: npt.NDArray[np.int64]
    noise: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    n_errors: int

    def ranked(self) -> npt.NDArray[np.int64]:
        """All examples, the most suspicious first; ties go to the lower row."""
        order: npt.NDArray[np.int64] = np.argsort(-self.suspicion, kind="stable")
        return order

    def listed(self) -> npt.NDArray[np.int64]:
        """The ``n_errors`` most suspicious examples, the most suspicious first."""
        return self.ranked()[: self.n_errors]


def find_label_errors(
    network: nn.Module,
    x: RawInputs,
    y: npt.ArrayLike,
    *,
    preprocessing: Preprocessing | None = None,
    config: WatchConfig | None = None,
    report: Progress | None = None,
) -> LabelErrors:
    """Find labels that are likely wrong, by training a network once.

    Parameters
    ----------
    network : nn.Module
        From preprocessed inputs to features (batch, feature), not yet trained; trained here, in place. A frozen
        network or feature rows need a part that learns: see `small_network`.
    x : array of shape (example, ...)
        uint8 images or float feature rows.
    y : int array of shape (example,)
        Labels, >= 0.
    preprocessing : Preprocessing, optional
        Default: `Preprocessing.of` the data.
    config : WatchConfig, optional
    report : callable, optional

    Returns
    -------
    LabelErrors

    Raises
    ------
    DataError
        If the data is of the wrong form, has a single label, or fewer than 20 examples.

    Notes
    -----
    Answers noted while training, as in area-under-the-margin ranking [1]_; a noise matrix from sure examples, as in
    confident learning [2]_. Ours: noted before the step, so that no example is judged by its own label of that epoch;
    an empirical-Bayes matrix; and Bayes' rule in place of a margin. A label that is *always* wrong in the same way
    (all sneakers called boots) cannot be seen.

    References
    ----------
    .. [1] G. Pleiss et al., "Identifying mislabeled data using the area under the margin ranking", 2020.
    .. [2] C. Northcutt, L. Jiang, I. Chuang, "Confident learning", 2021.
    """
    labels = check_labels(x, y)
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"`y` must hold at least two labels, got only {classes[0]}. A single label cannot be confused.")
    if len(x) < 20:
        raise DataError(f"`x` must hold at least 20 examples, got {len(x)}. Fewer say nothing about their labels.")
    targets = targets.astype(np.int64)
    watched = watch_training(network, x, targets, preprocessing=preprocessing, config=config, report=report)
    return judge_labels(np.exp(watched.log_probabilities), targets, classes)


def judge_labels(
    probabilities: npt.NDArray[np.float64], y: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None = None
) -> LabelErrors:
    """Suspicion of each label from class probabilities that were made without it, or nearly so.

    Parameters
    ----------
    probabilities : float array of shape (example, class)
        Rows sum to 1.
    y : int64 array of shape (example,)
        Given labels, positions of the classes.
    labels : int64 array of shape (class,), optional
        Label of each class. Default: its position.

    Returns
    -------
    LabelErrors
    """
    n, n_classes = probabilities.shape
    matrix = noise_matrix(anchor_counts(probabilities, y))
    posterior = given_true(np.maximum(probabilities, 1e-30), y, matrix)
    rows = np.arange(n)
    others = posterior.copy()
    others[rows, y] = -1.0
    suspicion = np.maximum(others, 0).sum(1)  # not 1 - P(given): the smallest would be lost in rounding
    wrong = (posterior.sum(0) * (1 - matrix.diagonal())).sum()
    ids = np.arange(n_classes) if labels is None else labels
    return LabelErrors(suspicion, ids[others.argmax(1)], matrix, ids, round(float(wrong)))


def watch_training(
    network: nn.Module,
    x: RawInputs,
    y: npt.NDArray[np.int64],
    *,
    preprocessing: Preprocessing | None = None,
    config: WatchConfig | None = None,
    report: Progress | None = None,
) -> Watched:
    """Train a network with a linear classifier and note its answers, each before the step that uses its label.

    Parameters
    ----------
    network : nn.Module
        Trained in place; in evaluation mode afterwards.
    x : array of shape (example, ...)
    y : int64 array of shape (example,)
        From 0 to the number of classes - 1.
    preprocessing, config, report
        As in `find_label_errors`.

    Returns
    -------
    Watched
    """
    config = config or WatchConfig()
    preprocessing = preprocessing or Preprocessing.of(x)
    preprocessing.check(x)
    report = report or (lambda _step, _share: None)
    epochs, batches = config.sizes(len(x))
    torch.manual_seed(config.seed)
    network.to(config.device).eval()
    with torch.no_grad():
        width = int(network(preprocessing(x[:2], config.device)).shape[-1])
    both = nn.Sequential(network, nn.Linear(width, int(y.max()) + 1).to(config.device))
    both.to(memory_format=torch.channels_last)  # convolutions of few channels: a third less time on a CPU
    trained = [parameter for parameter in both.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, config.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=epochs * batches)
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
            rate.step()
            constrain(network)
            if place % 20 == 0:
                report("watching the training", (epoch + place / batches) / epochs)
    schedule(network, 1.0)
    return Watched((noted / (epochs - epochs // 2)).log_softmax(1).numpy(), both.eval())


def small_network(width: int, *, hidden: int = 256) -> nn.Module:
    """What learns on feature rows or on a frozen network: standardised features and one hidden layer.

    Parameters
    ----------
    width : int
        Features of a row, >= 1.
    hidden : int, default 256
    """
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(width, affine=False), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2)
    )


class _Draw:
    """From raw rows to a batch that chance has changed."""

    def __init__(self, config: WatchConfig, preprocessing: Preprocessing) -> None:
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
