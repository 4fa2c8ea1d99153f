"""The protocol *label-errors*: wrong labels are put into the training part, and every method ranks its examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import backbones
from protocols.peers import label_errors as peers
from protocols.peers.label_errors import Probabilities, Ranking
from protocols.runs.encoders import make_encoder
from protocols.runs.label_noise import KINDS, Noisy, add_noise, partners_of
from protocols.runs.outcome import Column, Curve, Row, SeedOutcome
from protocols.runs.protocol import Protocol, Report, Setting
from slots.errors import UsageError
from slots.label_errors import LabelErrors, WatchConfig, judge_labels, small_network, watch_training
from slots.label_errors_evidence import shut_out
from slots.preprocessing import Preprocessing, RawInputs
from slots.train_config import TrainConfig
from slots.training import fit

Labels = npt.NDArray[np.int64]

_RECALLS = tuple(round(0.02 * step, 2) for step in range(1, 51))
_SLOTS = TrainConfig(epochs=4, slots_per_class=10)
_NO_LIST = np.zeros(0, np.int64)

COLUMNS = (
    Column("ap", "average precision"),
    Column("auroc", "AUROC"),
    Column("precision_at_n", "right among as many as there are errors"),
    Column("listed", "listed", "count", None),
    Column("listed_precision", "right among the listed"),
    Column("listed_recall", "errors listed"),
    Column("seconds", "seconds beyond the features", "seconds", "lower"),
)


def run_seed(setting: Setting, seed: int, report: Report) -> SeedOutcome:
    """Rank the training examples under each kind of noise; see `PROTOCOL`."""
    kinds, x, y, n_classes = _check(setting)
    share = float(PROTOCOL.option(setting, "share"))
    partners = partners_of(setting.data.name, np.asarray(x, np.float32).reshape(len(x), -1), y, n_classes)
    rows: list[Row] = []
    curves: list[Curve] = []
    skipped: dict[str, str] = {}
    facts: dict[str, Any] = {"examples": len(x), "partners": partners}
    for place, kind in enumerate(kinds):
        noisy = add_noise(y, kind, seed, share=share, partners=partners, n_classes=n_classes)
        if not 0 < noisy.wrong.sum() < len(x):
            raise UsageError(f"`share` must change some labels and not all, got {share}. 0.05 changes one in twenty.")
        case = _Case(setting, x, noisy.y, seed, _part(report, kind, place / len(kinds), 1 / len(kinds)))
        for verdict in _verdicts(case, skipped):
            rows.append(_row(kind, noisy, verdict))
            if verdict.curve:
                curves.append(_curve(setting.data.name, kind, noisy, verdict))
        facts[kind] = {"errors": int(noisy.wrong.sum()), **case.facts(noisy, y)}
    return SeedOutcome(rows, curves, facts, skipped)


@dataclass(frozen=True)
class _Verdict:
    """One method's ranking of one case."""

    method: str
    ranking: Ranking
    seconds: float
    ours: bool = False
    note: str = ""
    curve: bool = True


class _Case:
    """Data with wrong labels, and what several methods share about them, each made when it is asked for."""

    def __init__(self, setting: Setting, x: RawInputs, y: Labels, seed: int, report: Report) -> None:
        self.setting, self.x, self.y, self.seed, self.report = setting, x, y, seed, report
        self.learns = setting.model is None and _learns(setting.backbone)
        self._features: npt.NDArray[np.float32] | None = None
        self._near: npt.NDArray[np.int64] | None = None
        self.inputs = x if self.learns else self.features()
        self.preprocessing = Preprocessing.of(self.inputs)
        started = time.perf_counter()
        watched = watch_training(
            self._network(),
            self.inputs,
            y,
            config=WatchConfig(seed=seed, device=setting.device),
            report=lambda step, done: report(step, 0.35 * done),
        )
        self.classifier = watched.classifier
        self.probabilities = np.exp(watched.log_probabilities)
        self.watch_s = time.perf_counter() - started
        self.found: LabelErrors = judge_labels(self.probabilities, y)
        self.judged_s = time.perf_counter() - started

    def features(self) -> npt.NDArray[np.float32]:
        """What the peers see: features of the setting, learned from the wrong labels where they are learned."""
        if self._features is None:
            encoder = make_encoder(
                self.setting, self.x, self.y, self.seed, lambda step, done: self.report(step, 0.35 + 0.1 * done)
            )
            self._features = encoder(self.x)
        return self._features

    def neighbours(self, count: int) -> npt.NDArray[np.int64]:
        """Nearest other examples on the features."""
        if self._near is None:
            self._near = peers.neighbours(self.features(), count)
        return self._near

    def refit(self, fitted: Labels, held_out: Labels) -> Probabilities:
        """Probabilities of some examples by a network like the watched one, trained on others."""
        x, seed, setting = self.inputs, self.seed, self.setting
        if self.learns and not PROTOCOL.option(setting, "long_folds"):
            encoder = make_encoder(replace(setting, cache=None), x[fitted], self.y[fitted], seed)
            return _softmax(encoder.logits(encoder(x[held_out])))
        config = WatchConfig(seed=seed, device=setting.device)
        network = watch_training(self._network(), x[fitted], self.y[fitted], config=config).classifier
        return _softmax(_outputs(network, self.preprocessing, x[held_out], setting.device))

    def shut_out(self) -> npt.NDArray[np.int64]:
        """How many examples each one shuts out of slots that were fitted on the watched network's features."""
        network = self.classifier[0]  # type: ignore[index]
        features = _outputs(network, self.preprocessing, self.inputs, self.setting.device)
        config = replace(_SLOTS, seed=self.seed)
        model, _ = fit(features, self.y, config=config, report=lambda step, done: self.report(step, 0.45 + 0.05 * done))
        return shut_out(torch.from_numpy(features), self.y, model.head.weights.detach(), model.head.labels)

    def facts(self, noisy: Noisy, y: Labels) -> dict[str, Any]:
        """How well the noise itself was found: the number of errors, its matrix, and the true labels suggested."""
        return {
            "estimated_errors": self.found.n_errors,
            "noise_matrix": self.found.noise.round(4),
            "right_suggestions": float((self.found.suggested == y)[noisy.wrong].mean()),
        }

    def _network(self) -> nn.Module:
        torch.manual_seed(self.seed)
        if not self.learns:
            return small_network(self.preprocessing.shape[0])
        try:
            return backbones.build(self.setting.backbone, input_shape=self.preprocessing.shape)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(str(error)) from error


def _verdicts(case: _Case, skipped: dict[str, str]) -> Iterator[_Verdict]:
    """Every method in the order of the table; what is not installed goes to ``skipped``."""
    yield _Verdict("slots: watched training", Ranking(case.found.suspicion, case.found.listed()), case.judged_s, True)
    started = time.perf_counter()
    damage = case.shut_out().astype(np.float64)
    seconds = time.perf_counter() - started + case.watch_s
    yield _Verdict(
        "slots: examples shut out of slots", Ranking(damage, _NO_LIST), seconds, True, "Evidence, not our ranking."
    )
    for name in case.setting.peers:
        if name.startswith("cleanlab") and not _installed("cleanlab"):
            skipped[name] = "not installed: pip install 'neural-slots[peers]'"
            continue
        case.report(name, 0.5 + 0.5 * case.setting.peers.index(name) / len(case.setting.peers))
        yield from _PEERS[name](case)
    rng = np.random.default_rng([case.seed, 1])
    yield _Verdict("random", Ranking(rng.random(len(case.y)), _NO_LIST), 0.0)


def _cleanlab(
    name: str, make: Callable[[], Probabilities], case: _Case, methods: Sequence[str], note: str, earlier_s: float = 0.0
) -> Iterator[_Verdict]:
    """cleanlab on some probabilities, once a method; making them counts."""
    words = {"self_confidence": "self-confidence", "normalized_margin": "normalised margin"}
    started = time.perf_counter()
    probabilities = make()
    made = earlier_s + time.perf_counter() - started
    for method in methods:
        started = time.perf_counter()
        ranking = peers.cleanlab(probabilities, case.y, method=method)  # type: ignore[arg-type]
        yield _Verdict(f"{name}, {words[method]}", ranking, made + time.perf_counter() - started, note=note)


_BOTH = ("self_confidence", "normalized_margin")


def _folds(case: _Case) -> Iterator[_Verdict]:
    folds = int(PROTOCOL.option(case.setting, "folds"))
    network = case.setting.backbone if case.learns else "hidden layer"
    alike = not case.learns or PROTOCOL.option(case.setting, "long_folds")
    note = f"{folds} trainings, each {'as long as ours, and as ours' if alike else 'of 3 epochs, without shifts'}."

    def make() -> Probabilities:
        return peers.out_of_sample(
            case.refit,
            case.y,
            folds=folds,
            seed=case.seed,
            report=lambda done: case.report("cleanlab: folds", 0.5 + 0.3 * done),
        )

    yield from _cleanlab(f"cleanlab, {folds}-fold {network}", make, case, _BOTH, note)


def _of_watched(case: _Case) -> Iterator[_Verdict]:
    note = "Our answers noted in training, cleanlab's rule."
    yield from _cleanlab("cleanlab, watched training", lambda: case.probabilities, case, _BOTH, note, case.watch_s)


def _of_neighbours(case: _Case) -> Iterator[_Verdict]:
    count = int(PROTOCOL.option(case.setting, "neighbours"))
    name = f"cleanlab, {count} neighbours"
    case.features()
    yield from _cleanlab(
        name, lambda: peers.neighbour_shares(case.neighbours(count), case.y), case, ("normalized_margin",), ""
    )


def _of_logistic(case: _Case) -> Iterator[_Verdict]:
    folds = int(PROTOCOL.option(case.setting, "folds"))
    note = "The features were learned with the labels under judgement." if case.learns else ""
    fit_predict = peers.logistic_regression(case.features(), case.y)

    def make() -> Probabilities:
        return peers.out_of_sample(fit_predict, case.y, folds=folds, seed=case.seed)

    yield from _cleanlab(f"cleanlab, {folds}-fold logistic regression", make, case, ("self_confidence",), note)


def _disagreement(case: _Case) -> Iterator[_Verdict]:
    count = int(PROTOCOL.option(case.setting, "neighbours"))
    case.features()
    started = time.perf_counter()
    ranking = peers.disagreement(case.neighbours(count), case.y)
    yield _Verdict(f"disagreement of {count} neighbours", ranking, time.perf_counter() - started)


def _nearest(case: _Case) -> Iterator[_Verdict]:
    count = int(PROTOCOL.option(case.setting, "neighbours"))
    case.features()
    started = time.perf_counter()
    ranking = peers.other_is_nearest(case.neighbours(count), case.y)
    seconds = time.perf_counter() - started
    note = "Yes or no, so its average precision is that of one step."
    yield _Verdict("nearest has another label", ranking, seconds, note=note, curve=False)


_PEERS: dict[str, Callable[[_Case], Iterator[_Verdict]]] = {
    "cleanlab-folds": _folds,
    "cleanlab-watched": _of_watched,
    "cleanlab-neighbours": _of_neighbours,
    "cleanlab-logistic": _of_logistic,
    "neighbours": _disagreement,
    "nearest": _nearest,
}


def _row(kind: str, noisy: Noisy, verdict: _Verdict) -> Row:
    """Figures of one ranking."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    suspicion, listed, wrong = verdict.ranking.suspicion, verdict.ranking.listed, noisy.wrong
    top = np.argsort(-suspicion, kind="stable")[: int(wrong.sum())]
    figures: dict[str, float | None] = {
        "ap": float(average_precision_score(wrong, suspicion)),
        "auroc": float(roc_auc_score(wrong, suspicion)),
        "precision_at_n": float(wrong[top].mean()) if verdict.curve else None,
        "seconds": round(verdict.seconds, 2),
    }
    if len(listed):
        right = float(wrong[listed].sum())
        figures |= {
            "listed": len(listed),
            "listed_precision": right / len(listed),
            "listed_recall": right / float(wrong.sum()),
        }
    return Row(verdict.method, figures, ours=verdict.ours, group=f"{kind} noise", note=verdict.note)


def _curve(data: str, kind: str, noisy: Noisy, verdict: _Verdict) -> Curve:
    """Precision among the fewest examples that hold each share of the errors."""
    hits = noisy.wrong[np.argsort(-verdict.ranking.suspicion, kind="stable")].cumsum()
    lengths = 1 + np.searchsorted(hits, [max(1, round(recall * hits[-1])) for recall in _RECALLS])
    return Curve(
        f"{data}, {kind} noise",
        verdict.method,
        _RECALLS,
        [float(hits[n - 1] / n) for n in lengths],
        "share of the errors found",
        "share right among those looked at",
        ours=verdict.ours,
    )


def _check(setting: Setting) -> tuple[tuple[str, ...], RawInputs, Labels, int]:
    """Kinds of noise, the labelled training examples, their classes from 0 on, and the number of classes."""
    kinds = tuple(part.strip() for part in str(PROTOCOL.option(setting, "kinds")).split(","))
    if not kinds or not set(kinds) <= set(KINDS):
        raise UsageError(f"`kinds` must be names of {', '.join(KINDS)}, got {','.join(kinds)!r}. Leave it out for both.")
    share, wanted = float(PROTOCOL.option(setting, "share")), int(PROTOCOL.option(setting, "examples"))
    if not 0 < share < 1:
        raise UsageError(f"`share` must lie in (0, 1), got {share}. 0.05 changes one label in twenty.")
    rows = np.flatnonzero(setting.data.y_train >= 0)[: wanted or None]
    if len(rows) < 100:
        raise UsageError(
            f"`data` must have at least 100 labelled training examples, got {len(rows)}. Name another data set."
        )
    classes, y = np.unique(setting.data.y_train[rows], return_inverse=True)
    if len(classes) < 2:
        raise UsageError("`data` must have at least two classes, got one. Name another data set.")
    return kinds, setting.data.x_train[rows], y.astype(np.int64), len(classes)


def _learns(backbone: str) -> bool:
    return backbone not in {"none", "pixels"} and not backbone.startswith(("cifar_resnet", "torchvision:", "timm:"))


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _part(report: Report, kind: str, start: float, share: float) -> Report:
    return lambda step, done: report(f"{kind}: {step}", start + share * done)


def _softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    found: Probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    return found


@torch.no_grad()
def _outputs(network: nn.Module, preprocessing: Preprocessing, x: RawInputs, device: str) -> npt.NDArray[np.float32]:
    """What a network in evaluation mode makes of raw inputs."""
    parts = [network(preprocessing(x[i : i + 128], device)).float().cpu() for i in range(0, len(x), 128)]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found


PROTOCOL = Protocol(
    name="label-errors",
    title="Wrong labels",
    about=(
        "A share of the training labels (5 %) is changed, to any other class alike (uniform) or to the class that it is "
        "mistaken for (pairs), and every method ranks all training examples by how suspicious their labels are. Average "
        "precision and AUROC judge the ranking; right among as many as there are errors needs their number to be known; "
        "listed is what a method itself calls wrong, with the share that is right and the share of all errors in it. "
        "Seconds leave out the training of the features, which neighbours and logistic regression need. Injected errors "
        "are far easier to find than real ones."
    ),
    columns=COLUMNS,
    headline="ap",
    peers=tuple(_PEERS),
    defaults={
        "share": 0.05,
        "kinds": "uniform,pairs",
        "examples": 0,
        "folds": 5,
        "neighbours": 20,
        "long_folds": False,
    },
    run_seed=run_seed,
    backbone="cnn",
)
