"""Defaults that read the data: a short look at held-out examples decides what a fit on fixed features uses.

Ten classes with thousands of examples want many slots a class and a sharp softmax; a hundred and fifty classes with a
hundred sentences each want one slot a class and a soft one; weak features want whitening. No table of data sets knows
which one a user brings, but a few fits of a second do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.whitening import By, ClassSums, Whitening
from slots.head.similarities import normalize
from slots.progress import Progress, silent
from slots.training.config import TrainConfig
from slots.training.fixed_features import SlotGrid, first_slots, train_fixed

SHRINKAGES = (1.0, 0.3, 0.03)
"""Whitenings tried beside none: centred only, half way, and nearly full."""

MOST_SLOTS = 30
"""Slots a class beyond which the closing pass, not the training, adds what is missing."""

_EPOCHS = 10
_SLOT_COUNTS = (4, 12, MOST_SLOTS)
_SCALE = 20.0
_LOOK_ROWS = 6000  # training rows of a try; a try takes about a third of a second of one thread
_CHECK_ROWS = 2000  # held-out answers that a decision rests on
_FOLDS = 4
_FEW_FEATURES = 63  # of more, rows are of about the same length, and directions say all
_MOST_FEATURES = 2048  # of more, a covariance is not turned round: that takes the cube of it, minutes at 6,000
_BLOCK = 1 << 16  # rows looked over at once
_STANDARD_ERRORS = 0.5  # by which a less simple choice must be ahead


@dataclass(frozen=True)
class AutoConfig:
    """A `TrainConfig` whose fields are chosen by looking at the data, but for those that are given.

    Parameters
    ----------
    base : TrainConfig
        Where fields that no look decides come from, and those in ``given``.
    given : frozenset of str
        Names of fields that stay as they are in ``base``.

    Notes
    -----
    Only where training does not change the features (feature rows, a frozen network) can a look decide; otherwise
    ``base`` is used as it is.
    """

    base: TrainConfig = field(default_factory=TrainConfig)
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Try:
    """One setting that was tried.

    Parameters
    ----------
    whitening : float or None
        Shrinkage; None for raw directions.
    slots_per_class : int
        Slots a class.
    scale : float
        Factor on the pooled cosine.
    accuracy : float
        Of the held-out examples, in [0, 1].
    whitening_by : {"covariance", "correlation"}, default "covariance"
        What the whitening shrinks.
    lift : float, default 0.0
        Length of the constant feature behind it.
    """

    whitening: float | None
    slots_per_class: int
    scale: float
    accuracy: float
    whitening_by: By = "covariance"
    lift: float = 0.0


@dataclass(frozen=True)
class Look:
    """What a look at the data found.

    Parameters
    ----------
    config : TrainConfig
        The setting to fit with.
    tries : tuple of Try
        All settings that were tried, in order.
    chosen : Try
        The best of them.
    n_checked : int
        Held-out examples behind each accuracy.
    right : bool array of shape (n_checked,)
        Which of them the best setting answers rightly; in the same order for the same labels and seed.
    """

    config: TrainConfig
    tries: tuple[Try, ...]
    chosen: Try
    n_checked: int
    right: npt.NDArray[np.bool_] = field(repr=False, compare=False)


def look_at(
    rows: Tensor,
    labels: npt.NDArray[np.int64],
    auto: AutoConfig,
    *,
    among: npt.NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Look | None:
    """Choose whitening, slots a class and scale by the accuracy on examples that trained nothing.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        Features.
    labels : int64 array of shape (example,)
        Labels, >= 0.
    auto : AutoConfig
        What is given already.
    among : int64 array, optional
        The part of the data that a fit may train on, sorted. Default: all. Only the few thousand rows that are looked
        at are copied.
    progress : callable, optional
        Told the progress.

    Returns
    -------
    Look or None
        None where there is nothing to look at: fewer than two classes that have two examples.

    Notes
    -----
    The simplest setting comes first (raw directions, one slot a class); another takes its place if it is ahead by half
    a standard error of the paired difference. The same for the same data and seed.
    """
    among = np.arange(len(labels)) if among is None else among
    directed = torch.cat([(block != 0).any(1) for block in rows.split(_BLOCK)]).cpu().numpy()
    seen = among[directed[among]]  # a zero row has no direction to tell anything by
    parts = _parts(labels[seen], auto.base.seed)
    if not parts:
        return None
    used = np.unique(np.concatenate([part for both in parts for part in both]))
    parts = [(np.searchsorted(used, fitted), np.searchsorted(used, checked)) for fitted, checked in parts]
    asked = seen[used]
    trial = _Trials(rows[torch.from_numpy(asked)], labels[asked], parts, auto, progress or silent, n=len(seen))
    best = trial.run(trial.start())
    if "whitening" not in auto.given:
        ranked = [best, *(trial.run(setting) for setting in trial.whitened(best.setting))]
        best = _best(ranked)
        lifted = [trial.run(setting) for setting in trial.lifted(best.setting)]
        starts = [best] if best is ranked[0] else [best, ranked[0]]
        starts += [_best(lifted)] if lifted else []
        best = _best([best, *lifted])
    else:
        starts = [best]
    if "slots_per_class" not in auto.given:
        # Raw directions go on beside the best whitening, and length too: with more slots they often overtake it.
        best = _best([_more_slots(trial, start) for start in starts])
    if best.setting.lift:
        best = _best([best, trial.run(replace(best.setting, lift=2 * best.setting.lift))])
    if "scale" not in auto.given:
        best = _best([best, *(trial.run(replace(best.setting, scale=best.setting.scale * f)) for f in (0.5, 2.0))])
        if best.setting.scale > _SCALE:
            best = _best([best, trial.run(replace(best.setting, scale=4 * _SCALE))])
    return trial.look(best)


def steps_of(n: int) -> tuple[int, int]:
    """Epochs and batch size for ``n`` training examples: at least eighty steps, however few there are."""
    return _EPOCHS, min(500, max(min(32, n), n // 8), n)


@dataclass(frozen=True)
class _Tried:
    """One try with the answers it gave: right or not, of each held-out example."""

    setting: TrainConfig
    right: npt.NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def _best(tried: list[_Tried]) -> _Tried:
    """The first, unless a later one is clearly ahead of the best so far."""
    best = tried[0]
    for other in tried[1:]:
        if is_ahead(other.right, best.right):
            best = other
    return best


def is_ahead(right: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> bool:
    """Whether answers are right more often than others to the same examples, by half a standard error.

    Parameters
    ----------
    right, other : bool arrays of shape (example,)
        Which answers are right.
    """
    differ = int((right != other).sum())
    lead = int(right.sum()) - int(other.sum())
    return bool(lead > _STANDARD_ERRORS * np.sqrt(max(1, differ)))


def _more_slots(trial: _Trials, start: _Tried) -> _Tried:
    """Go up in slots a class while it helps."""
    best = start
    for count in _SLOT_COUNTS:
        if count > trial.most_slots:
            break
        more = trial.run(replace(best.setting, slots_per_class=count))
        better = _best([best, more])
        if better is best:
            break
        best = better
    return best


class _Trials:
    """Fits on a part of the data, each judged on the rest."""

    def __init__(
        self,
        rows: Tensor,
        labels: npt.NDArray[np.int64],
        parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
        auto: AutoConfig,
        progress: Progress,
        *,
        n: int,
    ) -> None:
        self.rows, self.labels, self.parts, self.auto, self.progress = rows, labels, parts, auto, progress
        self.n = n  # examples of the fit, of which these rows are some
        self.tried: list[Try] = []
        self.n_fitted = max(len(fitted) for fitted, _ in parts)
        sizes = np.bincount(labels[parts[0][0]])
        self.most_slots = int(np.median(sizes[sizes > 0])) // 3
        self.targets = torch.from_numpy(labels).to(rows.device)
        self._sums: dict[int, ClassSums] = {}
        self._white: dict[tuple[int, float | None, By, float], Tensor] = {}
        self._grids: dict[tuple[int, float | None, By, float, int], SlotGrid] = {}

    def start(self) -> TrainConfig:
        """The simplest setting."""
        epochs, batch_size = steps_of(self.n_fitted)
        simple: dict[str, Any] = {
            "whitening": None, "slots_per_class": 1, "scale": _SCALE, "epochs": epochs, "batch_size": batch_size
        }  # fmt: skip
        return replace(self.auto.base, **{k: v for k, v in simple.items() if k not in self.auto.given})

    def whitened(self, setting: TrainConfig) -> list[TrainConfig]:
        """A setting with each whitening; where features have units of their own, also without these."""
        kinds: tuple[By, ...] = ("covariance", "correlation") if self._of(0).uneven else ("covariance",)
        shares = SHRINKAGES if self.rows.shape[1] <= _MOST_FEATURES else SHRINKAGES[:1]
        return [replace(setting, whitening=share, whitening_by=by) for by in kinds for share in shares]

    def lifted(self, setting: TrainConfig) -> list[TrainConfig]:
        """Where features are few, each whitening of the chosen kind beside a constant feature."""
        if self.rows.shape[1] > _FEW_FEATURES or "lift" in self.auto.given:
            return []
        by = (
            setting.whitening_by
            if setting.whitening is not None
            else "correlation"
            if self._of(0).uneven
            else "covariance"
        )
        return [replace(setting, whitening=share, whitening_by=by, lift=1.0) for share in SHRINKAGES]

    def run(self, setting: TrainConfig) -> _Tried:
        """Fit with a setting on each part, and answer what was held out."""
        right = []
        for place, (fitted, checked) in enumerate(self.parts):
            features = self._features(place, setting)
            rows = torch.from_numpy(fitted)
            unit, targets = features[rows], self.targets[rows]
            trained = train_fixed(unit, targets, self._grid(place, setting, unit, targets), setting)
            if not len(trained.labels):  # whitened, all rows of each class are zero
                right.append(np.zeros(len(checked), bool))
                continue
            answers = trained.answers(features[torch.from_numpy(checked)], setting)
            right.append(answers.cpu().numpy() == self.labels[checked])
        found = _Tried(setting, np.concatenate(right))
        self.tried.append(_try(found))
        self.progress(f"looking at the data: try {len(self.tried)}", 0.0)
        return found

    def look(self, best: _Tried) -> Look:
        """The best setting, for a fit on all of the data."""
        setting, n = best.setting, self.n
        epochs, batch_size = steps_of(n)
        changes: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
        if setting.slots_per_class > 1:  # more examples fill more slots: as the square root, as k-means' best count
            grown = round(setting.slots_per_class * (n / self.n_fitted) ** 0.5)
            changes["slots_per_class"] = max(setting.slots_per_class, min(MOST_SLOTS, grown))
        config = replace(setting, **{k: v for k, v in changes.items() if k not in self.auto.given})
        return Look(config, tuple(self.tried), _try(best), len(best.right), best.right)

    def _grid(self, place: int, setting: TrainConfig, unit: Tensor, targets: Tensor) -> SlotGrid:
        """Where the slots begin; kept, since settings differ in the scale alone at the end."""
        key = place, setting.whitening, setting.whitening_by, setting.lift, setting.slots_per_class
        if key not in self._grids:
            count = max(1, setting.slots_per_class)
            self._grids[key] = first_slots(unit, targets, per_class=count, seed=setting.seed)
        return self._grids[key]

    def _features(self, place: int, setting: TrainConfig) -> Tensor:
        """Unit rows, whitened by what the fitted part of this place knows."""
        key = place, setting.whitening, setting.whitening_by, setting.lift
        if key not in self._white:
            rows = self.rows
            if setting.whitening is not None:
                white = Whitening.of(
                    self._of(place), shrinkage=setting.whitening, by=setting.whitening_by, lift=setting.lift
                )
                rows = white.to(rows.device)(rows)
            self._white[key] = normalize(rows.float())
        return self._white[key]

    def _of(self, place: int) -> ClassSums:
        """What a whitening needs to know of the fitted part of this place."""
        if place not in self._sums:
            fitted = torch.from_numpy(self.parts[place][0])
            self._sums[place] = ClassSums.of(self.rows[fitted], self.targets[fitted])
        return self._sums[place]


def _try(tried: _Tried) -> Try:
    it = tried.setting
    return Try(it.whitening, it.slots_per_class, it.scale, tried.accuracy, it.whitening_by, it.lift)


def _parts(labels: npt.NDArray[np.int64], seed: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Fitted and checked rows: one split where there are many examples, else folds; each class keeps one to fit on."""
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    if int((sizes > 1).sum()) < 2:
        return []
    order = np.random.default_rng([seed, 12]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    rank = np.concatenate([np.arange(size) for size in sizes])  # place of each example in its class
    spread = np.argsort((rank + 0.5) / sizes[labels[order]], kind="stable")  # so that any beginning has all classes
    order, rank = order[spread], rank[spread]
    fold = np.where(sizes[labels[order]] == 1, -1, rank % _FOLDS)
    if len(labels) >= 2 * _CHECK_ROWS:
        return [(np.sort(order[fold != 0][:_LOOK_ROWS]), np.sort(order[fold == 0][:_CHECK_ROWS]))]
    return [(np.sort(order[fold != k]), np.sort(order[fold == k])) for k in range(_FOLDS) if (fold == k).any()]
