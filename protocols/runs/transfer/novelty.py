"""Question 2: who tells what is foreign? Held-out classes and foreign rows nearby, other data sets far away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocols.harness.detection_metrics import mean_quality, quality
from protocols.harness.outcome import Row
from protocols.runs.ood.peers import NOVELTY_PEERS, Familiar, Score, fit_novelty_peer
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.classifiers import fitted
from protocols.runs.transfer.variants import Features, Task
from slots.errors import UsageError
from slots.novelty.detector import NoveltyDetector
from slots.shapes import Ids
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig
from slots.training.fitting import fit

NEAR, FAR = "novelty, near sets", "novelty, far sets"
DETECTOR, MODEL = "NoveltyDetector", "SlotModel.assess_novelty"
HELD_OUT, OWN = "held-out classes", "x_out"
PEERS = tuple(name for name in NOVELTY_PEERS if name not in ("isolation-forest", "lof", "k-means", "gaussians"))

_SHARE = 0.3  # of the classes, held out
_RATE = 0.05  # of false alarms, the default of every part
_LEAST = 200  # training examples that a slot model judges novelty from


def novelty_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """Detection of held-out classes, and of the foreign rows that the task brings.

    Parameters
    ----------
    task : Task
        Test rows of known classes are the familiar ones.
    seed : int
        Draws the classes that are held out.
    peers : sequence of str
        Some of `PEERS`; they get a logistic regression of the known classes.

    Returns
    -------
    list of Row
        ``auroc``, ``fpr95``; ``alarms`` of ours: familiar rows called novel at the default rate of 5 %. Foreign rows of
        an archive are near; of other data sets, the mean over them is one row.
    """
    rows: list[Row] = []
    near = {name: x for name, x in task.foreign.items() if name == OWN}
    far = {name: x for name, x in task.foreign.items() if name not in near}
    held, foreign = hold_out(task, seed)
    if held is not None:
        rows += _measured(held, {HELD_OUT: foreign}, {}, seed, peers)
    if task.foreign:
        rows += _measured(task, near, far, seed, peers)
    return rows


def hold_out(task: Task, seed: int) -> tuple[Task | None, Features]:
    """The task without some of its classes, and their test rows; None where there are fewer than four."""
    if task.n_classes < 4:
        return None, task.x_test[:0]
    rng = np.random.default_rng(seed)
    known = np.sort(rng.permutation(task.n_classes)[max(1, round(_SHARE * task.n_classes)) :])
    train, test = np.isin(task.y, known), np.isin(task.y_test, known)
    y, y_test = (np.searchsorted(known, it).astype(np.int64) for it in (task.y[train], task.y_test[test]))
    held = replace(task, x=task.x[train], y=y, x_test=task.x_test[test], y_test=y_test)
    return (held if (~test).any() and test.any() else None), task.x_test[~test]


def _measured(
    task: Task, near: dict[str, Features], far: dict[str, Features], seed: int, peers: Sequence[str]
) -> Iterator[Row]:
    """Every detector on one training part."""
    for it in _detectors(task, seed, peers):
        sets = [(NEAR, f"{task.name}, {name}", [x]) for name, x in near.items()]
        sets += [(FAR, task.name, list(far.values()))] if far else []
        for group, place, foreign in sets:

            def figures(it: _Detector = it, foreign: Sequence[Features] = foreign) -> dict[str, float | None]:
                familiar = it.score(task.x_test)
                found = asdict(mean_quality([quality(familiar, it.score(x)) for x in foreign]))
                return {**found, "seconds": it.seconds, "alarms": _alarms(it, task.x_test)}

            yield attempt(figures, it.method, ours=it.ours, group=group, task=place, note=it.note)


def _alarms(detector: _Detector, x: Features) -> float | None:
    """Share of familiar rows that it calls novel; None where its calibration is too small for the default rate."""
    try:
        return None if detector.decide is None else float(detector.decide(x).mean())
    except UsageError:
        return None


@dataclass(frozen=True)
class _Detector:
    """A fitted method: higher scores are more novel; ours also decide, at the default rate of false alarms."""

    method: str
    score: Score
    seconds: float
    note: str
    decide: Callable[[Features], npt.NDArray[np.bool_]] | None = None

    @property
    def ours(self) -> bool:
        """Only ours decide."""
        return self.decide is not None


def _detectors(task: Task, seed: int, peers: Sequence[str]) -> Iterator[_Detector]:
    """Every method, fitted one after the other."""
    started = time.process_time()
    detector = NoveltyDetector(seed=seed).fit(task.x, task.y)
    yield _Detector(DETECTOR, detector.predict, time.process_time() - started, "", detector.is_novel)
    started = time.process_time()
    model, _ = fit(task.x, task.y, config=AutoConfig(TrainConfig(seed=seed)))
    seconds = time.process_time() - started
    if model.novelty is not None and len(task.y) >= _LEAST:
        yield _Detector(
            MODEL,
            lambda x: model.assess_novelty(x, false_alarm_rate=0.5).scores,
            seconds,
            "The model of `slots.fit`, which classifies as well.",
            lambda x: model.assess_novelty(x, false_alarm_rate=_RATE).novel,
        )
    started = time.process_time()
    linear = logistic_layer(task.x, task.y)
    shared = time.process_time() - started
    familiar = Familiar(task.x, task.y, linear, seed=seed)
    for name in peers:
        if name in PEERS:
            started = time.process_time()
            try:
                made = fit_novelty_peer(name, familiar)
            except (ValueError, RuntimeError):  # too few examples or features for it: a dash, and the last rank
                continue
            seconds = shared + time.process_time() - started
            for peer in made:
                yield _Detector(peer.method, peer.score, seconds, peer.note)


def logistic_layer(x: Features, y: Ids) -> nn.Linear:
    """Logistic regression (scikit-learn, its own penalty) of rows scaled to a mean length of 1, as a linear layer.

    Parameters
    ----------
    x : float32 array of shape (example, feature)
        Training rows.
    y : int64 array of shape (example,)
        Classes from 0 without gaps, at least two.

    Returns
    -------
    nn.Linear
        Takes the rows as they are; its largest output is the class.
    """
    from sklearn.linear_model import LogisticRegression

    size = float(np.linalg.norm(x, axis=1).mean()) or 1.0
    found = fitted(LogisticRegression(C=10.0, max_iter=100, tol=1e-3), x / size, y)
    weight, bias = np.asarray(found.coef_), np.asarray(found.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn keeps the second's
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    linear = nn.Linear(x.shape[1], len(weight))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight / size))
        linear.bias.copy_(torch.from_numpy(bias))
    return linear.requires_grad_(False)
