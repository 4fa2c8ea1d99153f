"""The `ood` protocol: which inputs are none of the data's, at what price in false alarms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from protocols.harness.detection_metrics import Quality, mean_quality, quality
from protocols.harness.encoders import Features
from protocols.harness.foreign import is_noise
from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.ood.data_sets import Sets, far_sets, near_sets
from protocols.runs.ood.peers import (
    K_MEANS,
    NOVELTY_PEERS,
    Familiar,
    NoveltyPeer,
    Score,
    angle_to,
    fit_novelty_peer,
    k_means,
)
from slots.errors import UsageError
from slots.novelty.conformal import p_values
from slots.novelty.detector import NoveltyDetector
from slots.novelty.slot_novelty import recalibrate
from slots.progress import Progress
from slots.training.config import TrainConfig
from slots.training.fitting import fit

NOT_INSTALLED = "not installed: pip install 'neural-slots[peers]'"
_RATES = (0.05, 0.01)
_COUNTS = (10, 30, 100, 300, 1000)
_PER_CLASS = 50  # slots a class of the slot model, at most
_OURS = "slots: NoveltyDetector"
_FAR, _NEAR = "far sets, mean", "held-out classes"


@dataclass(frozen=True)
class _Detector:
    """A fitted method and what it took."""

    method: str
    score: Score
    remembered: int
    fit_s: float
    ours: bool = False
    note: str = ""


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Far sets and held-out classes of one seed, every method on both."""
    option = _options(setting)
    steps = 2 * (5 + len(setting.peers))
    done = 0

    def told(step: str, share: float) -> None:
        progress(step, min(1.0, (done + min(share, 1.0)) / steps))

    rows: list[Row] = []
    curves: list[Curve] = []
    facts: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for kind in ("far", "near"):
        told(f"{kind}: features", 0.0)
        sets = _split(kind, setting, seed, option, told)
        done += 1
        facts[kind] = _described(sets)
        measured = []
        started = time.perf_counter()
        ours = NoveltyDetector(option["slots"], seed=seed).fit(sets.train)
        facts[kind] |= _as_fitted(ours, sets)
        note = "Uses no labels."
        first = _Detector(_OURS, ours.predict, ours.n_vectors, time.perf_counter() - started, ours=True, note=note)
        measured.append((first, *_measure(first, sets)))
        done += 1
        for detector in _detectors(sets, setting, seed, option=option, skipped=skipped, progress=told):
            measured.append((detector, *_measure(detector, sets)))
            done += 1
            told(f"{kind}: {detector.method}", 0.0)
        rows += _rows(kind, measured)
        known = {detector.method: _mean(found).auroc for detector, found, _ in measured}
        curves += _curves(kind, sets, seed, option["slots"], known=known)
        done += 1
    return SeedOutcome(_ordered(rows), curves, facts, skipped)


def _options(setting: Setting) -> dict[str, Any]:
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    if option["slots"] < 10:
        raise UsageError(f"`slots` must be >= 10, got {option['slots']}. The goal is to need no more than 1000.")
    if not 0 < option["held_out"] < 1:
        raise UsageError(f"`held_out` must lie in (0, 1), got {option['held_out']}. 0.4 holds out four classes of ten.")
    if option["train"] < 0 or option["foreign"] < 10 or option["epochs"] < 0:
        raise UsageError(
            "`train` and `epochs` must be >= 0 and `foreign` >= 10, got "
            f"{option['train']}, {option['epochs']} and {option['foreign']}. Leave them out for the defaults."
        )
    return option


def _split(kind: str, setting: Setting, seed: int, option: dict[str, Any], progress: Progress) -> Sets:
    if kind == "far":
        return far_sets(setting, seed, n_train=option["train"], n_foreign=option["foreign"], progress=progress)
    return near_sets(setting, seed, share=option["held_out"], n_train=option["train"], progress=progress)


def _described(sets: Sets) -> dict[str, Any]:
    return {
        "known classes": list(sets.known),
        "training examples": len(sets.train),
        "calibration examples": len(sets.calibration),
        "test examples": len(sets.test),
        "foreign examples": {name: len(x) for name, x in sets.foreign.items()},
        "accuracy of the linear layer": sets.accuracy,
    }


def _detectors(
    sets: Sets, setting: Setting, seed: int, *, option: dict[str, Any], skipped: dict[str, str], progress: Progress
) -> Iterator[_Detector]:
    """Every other method, fitted one after the other."""
    started = time.perf_counter()
    told = NoveltyDetector(option["slots"], seed=seed).fit(sets.train, sets.y_train)
    yield _Detector(f"{_OURS}, with labels", told.predict, told.n_vectors, time.perf_counter() - started, ours=True)
    started = time.perf_counter()
    made = _slot_model(sets, seed, option, progress)
    yield _Detector(made.method, made.score, made.remembered, time.perf_counter() - started, ours=True, note=made.note)
    familiar = Familiar(sets.train, sets.y_train, sets.linear.cpu(), option["slots"], seed)
    for name in setting.peers:
        started = time.perf_counter()
        try:
            fitted = fit_novelty_peer(name, familiar)
        except ImportError:
            skipped[name] = NOT_INSTALLED
            continue
        seconds = time.perf_counter() - started
        for peer in fitted:
            yield _Detector(peer.method, peer.score, peer.remembered, seconds, note=peer.note)


def _slot_model(sets: Sets, seed: int, option: dict[str, Any], progress: Progress) -> NoveltyPeer:
    """Ours, as a classifier that also knows what it does not know: its slots are the prototypes."""
    n_classes = int(sets.y_train.max()) + 1
    per_class = max(1, min(_PER_CLASS, option["slots"] // n_classes, len(sets.y_train) // (4 * n_classes)))
    config = TrainConfig(epochs=option["epochs"], slots_per_class=per_class, seed=seed, held_out=0.1)
    model, _ = fit(sets.train, sets.y_train, config=config, progress=progress)
    note = "Classifies as well; trained on the same features."
    if model.novelty is None:
        raise UsageError(
            f"`data` must have at least 20 training examples for a slot model that judges novelty, got "
            f"{len(sets.train)}. Take more."
        )
    model.novelty = recalibrate(model, sets.calibration)

    def score(x: Features) -> Any:
        return model.assess_novelty(x, false_alarm_rate=0.5).scores

    return NoveltyPeer("slots: SlotModel.assess_novelty", score, model.head.n_slots, note)


def _measure(detector: _Detector, sets: Sets) -> tuple[dict[str, Quality], dict[str, float]]:
    """Quality on each foreign set, and the figures that do not depend on it."""
    started = time.perf_counter()
    test = detector.score(sets.test)
    seconds = time.perf_counter() - started
    calibration = detector.score(sets.calibration)
    foreign = {name: detector.score(x) for name, x in sets.foreign.items()}
    figures = {"remembered": float(detector.remembered), "fit_s": detector.fit_s}
    figures["score_ms"] = 1000 * seconds / len(test)
    chances = p_values(test, calibration)
    for rate in _RATES:
        if rate * (len(calibration) + 1) >= 1:
            figures[f"alarms_{100 * rate:.0f}"] = float((chances <= rate * (1 + 1e-12)).mean())
    counted = [scores for name, scores in foreign.items() if not is_noise(name)]
    flagged = [p_values(scores, calibration) <= 0.05 * (1 + 1e-12) for scores in counted]
    figures["found_5"] = float(np.mean([part.mean() for part in flagged]))
    return {name: quality(test, scores) for name, scores in foreign.items()}, figures


def _rows(kind: str, measured: Sequence[tuple[_Detector, dict[str, Quality], dict[str, float]]]) -> list[Row]:
    """One row a method for the mean, and for every foreign set where there are several."""
    rows = []
    for detector, found, figures in measured:
        group = _FAR if kind == "far" else _NEAR
        mean = asdict(_mean(found)) | figures
        rows.append(Row(detector.method, mean, detector.ours, group, detector.note))
        if kind == "far":
            rows += [Row(detector.method, asdict(it), detector.ours, f"against {n}") for n, it in found.items()]
    return rows


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Group after group, the two summaries first."""
    groups = dict.fromkeys([_FAR, _NEAR, *(row.group for row in rows)])
    return [row for group in groups for row in rows if row.group == group]


def _as_fitted(ours: NoveltyDetector, sets: Sets) -> dict[str, Any]:
    """False alarms of the detector with the calibration that `fit` gave it: by training examples."""
    chances = p_values(ours.predict(sets.test), ours.calibration)
    told = {f"{rate:g}": float((chances <= rate * (1 + 1e-12)).mean()) for rate in _RATES}
    return {"false alarms when calibrated on training examples": told}


def _mean(found: Mapping[str, Quality]) -> Quality:
    """Over the foreign sets but noise."""
    return mean_quality([it for name, it in found.items() if not is_noise(name)])


def _curves(kind: str, sets: Sets, seed: int, slots: int, *, known: Mapping[str, float]) -> list[Curve]:
    """AUROC against the number of vectors, beside the centres of k-means; what is known at ``slots`` is taken."""
    counts = [count for count in _COUNTS if count <= slots and count <= len(sets.train) // 2]

    def auroc(method: str, count: int, make: Callable[[int], Score]) -> float:
        if count == slots and method in known:
            return known[method]
        score = make(count)
        test = score(sets.test)
        return _mean({name: quality(test, score(x)) for name, x in sets.foreign.items()}).auroc

    def detector(count: int) -> Score:
        return NoveltyDetector(count, seed=seed).fit(sets.train).predict

    def centres(count: int) -> Score:
        return angle_to(k_means(sets.train, count, seed))

    ours = [auroc(_OURS, n, detector) for n in counts]
    theirs = [auroc(K_MEANS, n, centres) for n in counts]
    chart = f"AUROC, {_FAR if kind == 'far' else _NEAR}"
    axes: dict[str, Any] = {"x_label": "vectors remembered", "y_label": "AUROC", "log_x": True}
    return [
        Curve(chart, _OURS, counts, ours, ours=True, **axes),
        Curve(chart, K_MEANS, counts, theirs, **axes),
    ]


PROTOCOL = Protocol(
    name="ood",
    title="Novelty",
    about=(
        "Inputs that are none of the data's are told from those that are, on the same features for all methods. Far: "
        "whole other data sets (without any at hand, altered test images), and noise, which counts in no mean. "
        "Held-out classes: a share of the classes, drawn by the seed, is unknown to the network and the methods; a "
        "frozen network may have seen them. "
        "AUROC: the chance that a foreign input scores higher than a familiar one. FPR: foreign inputs accepted where "
        "95 % of the familiar are (familiar positive), or familiar inputs flagged where 95 % of the foreign are "
        "(foreign positive). AUPR with either as positive. Alarms: familiar inputs flagged at a promised rate of 5 or "
        "1 %, and found: foreign inputs flagged at 5 %, for every method by conformal p-values from one half of the "
        "test examples, measured on the other half. Vectors: what a method keeps, as many numbers as a feature row "
        "each, covariances not counted."
    ),
    columns=(
        Column("auroc", "AUROC"),
        Column("fpr95", "FPR, 95 % of familiar accepted", better="lower"),
        Column("fpr95_foreign", "FPR, 95 % of foreign flagged", better="lower"),
        Column("aupr_familiar", "AUPR, familiar"),
        Column("aupr_foreign", "AUPR, foreign"),
        Column("alarms_5", "alarms at 5 %", better=None),
        Column("alarms_1", "alarms at 1 %", better=None),
        Column("found_5", "found at 5 % alarms"),
        Column("remembered", "vectors", "count", "lower"),
        Column("fit_s", "fit", "seconds", "lower"),
        Column("score_ms", "ms an input", "score", "lower"),
    ),
    headline="auroc",
    peers=tuple(NOVELTY_PEERS),
    defaults={"slots": 1000, "train": 20_000, "foreign": 2000, "held_out": 0.4, "epochs": 3},
    run_seed=run_seed,
    backbone="cnn",
)
