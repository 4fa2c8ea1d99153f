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
from scipy.special import softmax
from torch import nn

from slots.deprecation import renamed
from slots.errors import DataError
from slots.features.preprocessing import Preprocessing
from slots.label_errors.linear_verdicts import linear_log_probabilities
from slots.label_errors.noise_matrix import confident_joint, noise_matrix, posterior
from slots.label_errors.training_dynamics import TrainingDynamicsConfig, record_training_dynamics, small_network
from slots.labels import check_labels
from slots.progress import Progress
from slots.shapes import RawInputs


@dataclass(frozen=True)
class LabelErrors:
    """Estimated label noise: a suspicion and a suggestion for every label.

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


@renamed(report="progress")
def find_label_errors(
    network: nn.Module | None,
    x: RawInputs,
    y: npt.ArrayLike,
    *,
    preprocessing: Preprocessing | None = None,
    config: TrainingDynamicsConfig | None = None,
    progress: Progress | None = None,
) -> LabelErrors:
    """Find labels that are likely wrong, by training a network once.

    Parameters
    ----------
    network : nn.Module or None
        From preprocessed inputs to features (batch, feature), not yet trained; trained here, in place. None for feature
        rows (embeddings, outputs of a frozen network): a small network is watched, and a linear classifier asked.
    x : array of shape (example, ...)
        uint8 images or float feature rows.
    y : int array of shape (example,)
        Labels, >= 0.
    preprocessing : Preprocessing, optional
        Default: `Preprocessing.of` the data.
    config : TrainingDynamicsConfig, optional
        How the network is trained. Default: `TrainingDynamicsConfig` as it stands.
    progress : callable, optional
        ``progress(step, share)``: told what is being done, and how much of it is done (0 to 1).

    Returns
    -------
    LabelErrors

    Raises
    ------
    DataError
        If the data is of the wrong form, has a single label, or fewer than 20 examples; if there is no network and
        ``x`` holds no feature rows.

    Notes
    -----
    Answers noted while training, as in area-under-the-margin ranking [1]_; a noise matrix from sure examples, as in
    confident learning [2]_. Ours: noted before the step, so that no example is judged by its own label of that epoch;
    an empirical-Bayes matrix; and Bayes' rule in place of a margin. A label that is *always* wrong in the same way
    (all sneakers called boots) cannot be seen.

    On feature rows alone a small network soon knows labels by heart, and a linear classifier misses what is not linear.
    So without a network the answers of `small_network` are multiplied with those of linear discriminant analysis in
    five folds (`slots.label_errors.linear_verdicts`): two verdicts, made in different ways.

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
    linear = np.zeros(1)
    if network is None:
        rows = np.asarray(torch.as_tensor(x).cpu(), np.float64)
        if rows.ndim != 2:
            raise DataError(
                f"`network` must be given for inputs of shape {tuple(rows.shape)}. "
                "Without one, `x` must be feature rows."
            )
        config = config or TrainingDynamicsConfig()
        linear = linear_log_probabilities(rows, targets, seed=config.seed)
        torch.manual_seed(config.seed)
        network = small_network(rows.shape[1])
    watched = record_training_dynamics(
        network, x, targets, preprocessing=preprocessing, config=config, progress=progress
    )
    return score_labels(softmax(watched.log_probabilities + linear, axis=1), targets, classes)


def score_labels(
    probabilities: npt.NDArray[np.float64], y: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None = None
) -> LabelErrors:
    """Score each label's suspicion by class probabilities that were made without it, or nearly so.

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
    matrix = noise_matrix(confident_joint(probabilities, y))
    chances = posterior(np.maximum(probabilities, 1e-30), y, matrix)
    rows = np.arange(n)
    others = chances.copy()
    others[rows, y] = -1.0
    suspicion = np.maximum(others, 0).sum(1)  # not 1 - P(given): the smallest would be lost in rounding
    wrong = (chances.sum(0) * (1 - matrix.diagonal())).sum()
    ids = np.arange(n_classes) if labels is None else labels
    return LabelErrors(suspicion, ids[others.argmax(1)], matrix, ids, round(float(wrong)))
