"""Self-training: a few given labels spread over an unlabelled pool, from what the old slots know about it.

No slot is made here. What comes out says what each unmatched example most likely is, and how sure that is: the next
question is asked where it is unsure (`slots.update.inquiry`), and new slots are made of what is confident
(`slots.update.drafting.pseudo_labelled_slots`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from slots.clustering.neighbours import nearest_neighbours
from slots.deprecation import renamed
from slots.errors import UsageError
from slots.features.source import FeatureSource, unit_features
from slots.head.prediction import Prediction
from slots.novelty.slot_novelty import assess, calibrated
from slots.progress import Progress, silent
from slots.shapes import Ids
from slots.update.snapshot import Snapshot

Shares = npt.NDArray[np.float64]
_UNITS = 1000
_ANCHORS = 6000
_NEIGHBOURS = 15
_SMOOTHED = 8
_OWN = 0.3  # share of an example's own activations; the rest is its neighbours' mean
_RATE = 0.05  # of the decisions that come with p-values; they are not used


@renamed(
    rounds="n_iter",
    near="n_neighbours",
    familiar="min_p_value",
    weight="label_weight",
    balance="class_balance",
    ridge="alpha",
)
@dataclass(frozen=True)
class SelfTrainingConfig:
    """How self-training is done, with a weighted ridge regression on random features.

    Parameters
    ----------
    n_iter : int, default 4
        Fits, each to what the one before it believed (count, >= 1).
    n_neighbours : int, default 10
        Nearest unmatched examples that take a given label in the first round (count, >= 0).
    min_p_value : float in (0, 1), default 0.3
        Unmatched examples whose novelty p-value is above this keep the old answer in the first round; the others say
        nothing until a label has reached them.
    label_weight : float, default 10.0
        How many pseudo-labels one given label is worth.
    class_balance : float in [0, 1], default 1.0
        0: each example counts the same; 1: each label counts the same. A class of which little is known yet must not
        be crowded out by the ten thousand familiar examples around it.
    alpha : float, default 1e-3
        Penalty, as a share of the number of examples.
    """

    n_iter: int = 4
    n_neighbours: int = 10
    min_p_value: float = 0.3
    label_weight: float = 10.0
    class_balance: float = 1.0
    alpha: float = 1e-3

    def __post_init__(self) -> None:
        if self.n_iter < 1 or self.n_neighbours < 0:
            raise UsageError(
                f"`n_iter` must be >= 1 and `n_neighbours` >= 0, got {self.n_iter} and {self.n_neighbours}. "
                "Try 4 and 10."
            )
        if not 0 < self.min_p_value < 1 or not 0 <= self.class_balance <= 1:
            raise UsageError(
                f"`min_p_value` must lie in (0, 1) and `class_balance` in [0, 1], got {self.min_p_value} and "
                f"{self.class_balance}. Try 0.3 and 1."
            )
        if self.label_weight <= 0 or self.alpha <= 0:
            raise UsageError(
                f"`label_weight` and `alpha` must be > 0, got {self.label_weight} and {self.alpha}. Try 10 and 0.001."
            )


SpreadConfig = SelfTrainingConfig
"""The same, under the name that `UpdateConfig.spread` and ``--spread`` go by."""


@dataclass(frozen=True)
class Pool:
    """The unlabelled pool: new data as a model sees it before any label is given.

    "Open" are the unmatched examples with a direction.

    Parameters
    ----------
    prediction : Prediction
        Of all new data.
    open : int64 array of shape (open,)
        Their rows in the new data, ascending.
    familiar : float64 array of shape (open,)
        Novelty p-value of each: large is familiar.
    unit : float tensor of shape (open, feature)
        Unit features of each by its first view.
    neighbours : int64 array of shape (open, neighbour)
        Places among the open, the most similar first, itself left out.
    activations : float tensor of shape (open, unit)
        Random rectified features, what the self-training regresses on.
    anchors : float tensor of shape (anchor, unit)
        The same for matched examples, and
    anchor_labels : int64 array of shape (anchor,)
        the answers they got.
    known : int64 array
        Labels that the old slots have.
    """

    prediction: Prediction
    open: Ids
    familiar: Shares
    unit: Float[Tensor, "open feature"]
    neighbours: Ids
    activations: Float[Tensor, "open unit"]
    anchors: Float[Tensor, "anchor unit"]
    anchor_labels: Ids
    known: Ids


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of the open examples, each with its margin.

    Parameters
    ----------
    labels : int64 array of shape (open,)
        Given, or the most likely by the last fit.
    margins : float64 array of shape (open,)
        Lead of the label over the next best in units of a full vote, cut to [0, 1]; 1 for given labels.
    """

    labels: Ids
    margins: Shares


@torch.no_grad()
def make_pool(
    snapshot: Snapshot, source: FeatureSource, prediction: Prediction, *, progress: Progress | None = None
) -> Pool:
    """Make the pool that self-training works on: what a model can say about new data before any label.

    Parameters
    ----------
    snapshot : Snapshot
        Of a model with a novelty calibration, as every fit leaves that kept 20 examples aside.
    source : FeatureSource
        The new data.
    prediction : Prediction
        The model's answers to it.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Returns
    -------
    Pool

    Raises
    ------
    UsageError
        If the model has no novelty calibration.

    Notes
    -----
    The activations are ``relu(R z)`` with fixed random ``R`` and ``z`` the standardised unit features: a regression on
    them is a kernel machine at the price of a linear one (Rahimi and Recht 2008; McDonnell et al. 2023). Those of an
    open example are mixed with its neighbours' (Wu et al. 2019), so that what lies together gets one label. Time and
    memory grow in step with the number of unmatched examples; beyond 16,384 of them neighbours are approximate
    (`slots.clustering.neighbours`).
    """
    progress = progress or silent
    unmatched = np.flatnonzero(~prediction.matched)
    matched = np.flatnonzero(prediction.matched)
    matched = matched[:: max(1, -(-len(matched) // _ANCHORS))]
    fresh = source.take(unmatched).fill(progress)
    unit = unit_features(fresh)
    usable = (unit != 0).any(1).cpu().numpy()
    rows, unit = unmatched[usable], unit[torch.from_numpy(usable).to(unit.device)]
    familiar = np.zeros(0)
    if len(rows):
        open_ones = fresh.take(np.flatnonzero(usable), keep=False)
        familiar = assess(open_ones, snapshot.head, calibrated(snapshot.novelty), rate=_RATE).p_values
    anchors = unit_features(source.take(matched, keep=False))
    activate = _activation(torch.cat([unit, anchors]))
    neighbours = nearest_neighbours(unit, _NEIGHBOURS, progress)
    return Pool(
        prediction=prediction,
        open=rows,
        familiar=familiar,
        unit=unit,
        neighbours=neighbours,
        activations=_smoothed(activate(unit), neighbours[:, :_SMOOTHED]),
        anchors=activate(anchors),
        anchor_labels=prediction.labels[matched],
        known=snapshot.head.labels.unique().cpu().numpy(),
    )


def self_train(pool: Pool, given: Ids, *, config: SelfTrainingConfig | None = None) -> PseudoLabels:
    """Pseudo-labels of the open examples by self-training from a few given labels.

    Parameters
    ----------
    pool : Pool
        What `make_pool` found.
    given : int64 array of shape (example,)
        Labels of the new data, -1 for unknown. Only those of open examples count.
    config : SelfTrainingConfig, optional
        Default: `SelfTrainingConfig`'s own numbers.

    Returns
    -------
    PseudoLabels

    Notes
    -----
    Self-training (Scudder 1965) of a ridge regression. In the first round it is fitted to the answers of the old slots
    to matched and to familiar examples, to the given labels, and to the nearest neighbours of these; then to its own
    answers, each with its margin as weight. Label propagation on a neighbour graph starves the new classes: with 100
    labels on network features of MNIST (8 and 9 new) the old answers flow into nearly all of them.
    """
    config = config or SpreadConfig()
    known = given[pool.open]
    told = np.flatnonzero(known >= 0)
    labels, weights = pool.prediction.labels[pool.open], (pool.familiar > config.min_p_value).astype(np.float64)
    # Old answers that given labels replace below come back where these do not last: each has a column of its own.
    classes, columns = np.unique(np.concatenate([pool.anchor_labels, labels, known[told]]), return_inverse=True)
    for place in told:
        around = pool.neighbours[place, : config.n_neighbours]
        labels[around], weights[around] = known[place], 1.0
    anchored = columns[: len(pool.anchors)]
    x = torch.cat([pool.anchors, pool.activations])
    margins = np.zeros(len(labels))
    said = len(anchored) + int((weights > 0).sum()) + len(told)
    for _ in range(config.n_iter if len(labels) and said else 0):
        labels[told], weights[told] = known[told], config.label_weight
        targets = np.concatenate([anchored, np.searchsorted(classes, labels)])
        votes = np.concatenate([np.ones(len(anchored)), weights])
        scores = pool.activations @ _regress(x, targets, votes, len(classes), config)
        labels, margins = _settled(scores, classes, pool)
        weights = np.clip(2 * margins, 0, 1)
    labels[told], margins[told] = known[told], 1.0
    return PseudoLabels(labels, margins)


def _smoothed(activations: Tensor, neighbours: Ids) -> Tensor:
    """Each row mixed with the mean of its nearest."""
    if neighbours.shape[1] == 0:
        return activations
    total = torch.zeros_like(activations)
    for column in torch.from_numpy(neighbours).to(activations.device).T:
        total += activations[column]
    return total.mul_((1 - _OWN) / neighbours.shape[1]).add_(activations, alpha=_OWN)


def _settled(scores: Tensor, classes: Ids, pool: Pool) -> tuple[Ids, Shares]:
    """Label and lead of each open example by its scores; among labels that old slots have, their answer stands."""
    answers = pool.prediction.labels[pool.open]
    old = np.isin(classes, pool.known)
    if old.all():
        top = scores.topk(min(2, len(classes)), dim=1).values
        return answers.copy(), (top[:, 0] - top[:, -1]).double().clamp(0, 1).cpu().numpy()
    mask = torch.from_numpy(old).to(scores.device)
    familiar = scores.masked_fill(~mask, -math.inf).amax(1)
    fresh, column = scores.masked_fill(mask, -math.inf).max(1)
    second = scores.topk(2, dim=1).values
    lead = torch.where(fresh > familiar, second[:, 0] - second[:, 1], familiar - fresh)
    labels = np.where((fresh > familiar).cpu().numpy(), classes[column.cpu().numpy()], answers)
    return labels, lead.double().clamp(0, 1).cpu().numpy()


def _activation(unit: Float[Tensor, "example feature"]) -> Callable[[Tensor], Tensor]:
    """Random rectified features, fixed by the data they standardise; the last is constant."""
    n_features = unit.shape[1]
    directions = torch.randn(n_features, _UNITS, generator=torch.Generator().manual_seed(0)) / math.sqrt(n_features)
    if len(unit) < 2:
        return lambda rows: torch.ones(len(rows), 1 + _UNITS, device=rows.device)
    mean, deviation = unit.mean(0), unit.std(0)
    deviation = deviation.clamp_min(0.1 * float(unit.std()) + 1e-12)
    directions = (directions.to(unit) / deviation[:, None]).contiguous()

    def activate(rows: Tensor) -> Tensor:
        hidden = ((rows - mean) @ directions).relu()
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)

    return activate


def _regress(
    x: Tensor, targets: Ids, votes: Shares, n_classes: int, config: SelfTrainingConfig
) -> Float[Tensor, "unit class"]:
    """Weighted ridge regression on one-hot labels, the labels balanced."""
    mass = np.bincount(targets, weights=votes, minlength=n_classes)
    votes = votes * np.maximum(mass, 1e-9)[targets] ** -config.class_balance
    used = np.flatnonzero(votes > 0)
    rows = x[torch.from_numpy(used).to(x.device)]
    weights = torch.from_numpy(votes[used] / votes[used].mean()).to(x)[:, None]
    wanted = torch.nn.functional.one_hot(torch.from_numpy(targets[used]), n_classes).to(x)
    ridge = config.alpha * len(rows)
    if len(rows) < rows.shape[1]:  # the same solution, by as many equations as there are rows
        rows = (rows * weights.sqrt()).double()
        return (rows.T @ _solved(rows @ rows.T, ridge, (wanted * weights.sqrt()).double())).to(x)
    weighted = (rows * weights).T
    return _solved((weighted @ rows).double(), ridge, (weighted @ wanted).double()).to(x)


def _solved(gram: Tensor, ridge: float, wanted: Tensor) -> Tensor:
    """Solution of the equations of a symmetric matrix with a ridge, which is added in place."""
    gram.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed):  # a ridge below what rounding does to the matrix
        solved: Tensor = torch.linalg.solve(gram, wanted)
        return solved
    return torch.cholesky_solve(wanted, factor)
