"""The protocol *label-errors*: wrong labels are put into the training part, and every method ranks its examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.label_errors.methods import PEERS, NoisyCase, RankedLabels, ranked_labels
from protocols.runs.label_errors.noise import KINDS, Noisy, add_noise, partners_of
from slots.errors import UsageError
from slots.progress import Progress, part
from slots.shapes import RawInputs

Labels = npt.NDArray[np.int64]
_RECALLS = tuple(round(0.02 * step, 2) for step in range(1, 51))

COLUMNS = (
    Column("ap", "average precision"),
    Column("auroc", "AUROC"),
    Column("precision_at_n", "right among as many as there are errors"),
    Column("listed", "listed", "count", None),
    Column("listed_precision", "right among the listed"),
    Column("listed_recall", "errors listed"),
    Column("seconds", "seconds beyond the features", "seconds", "lower"),
)

CASE_OPTIONS = ("folds", "neighbours", "long_folds")


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
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
        told = part(_named(progress, kind), place / len(kinds), (place + 1) / len(kinds))
        options = {key: PROTOCOL.option(setting, key) for key in CASE_OPTIONS}
        case = NoisyCase(setting, x, noisy.y, seed, told, **options)
        for ranked in ranked_labels(case, skipped):
            rows.append(_row(kind, noisy, ranked))
            if ranked.curve:
                curves.append(_curve(setting.data.name, kind, noisy, ranked))
        facts[kind] = {"errors": int(noisy.wrong.sum()), **case.facts(noisy, y)}
    return SeedOutcome(rows, curves, facts, skipped)


def _row(kind: str, noisy: Noisy, ranked: RankedLabels) -> Row:
    """Figures of one ranking."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    suspicion, listed, wrong = ranked.ranking.suspicion, ranked.ranking.listed, noisy.wrong
    top = np.argsort(-suspicion, kind="stable")[: int(wrong.sum())]
    figures: dict[str, float | None] = {
        "ap": float(average_precision_score(wrong, suspicion)),
        "auroc": float(roc_auc_score(wrong, suspicion)),
        "precision_at_n": float(wrong[top].mean()) if ranked.curve else None,
        "seconds": round(ranked.seconds, 2),
    }
    if len(listed):
        right = float(wrong[listed].sum())
        figures |= {
            "listed": len(listed),
            "listed_precision": right / len(listed),
            "listed_recall": right / float(wrong.sum()),
        }
    return Row(ranked.method, figures, ours=ranked.ours, group=f"{kind} noise", note=ranked.note)


def _curve(data: str, kind: str, noisy: Noisy, ranked: RankedLabels) -> Curve:
    """Precision among the fewest examples that hold each share of the errors."""
    hits = noisy.wrong[np.argsort(-ranked.ranking.suspicion, kind="stable")].cumsum()
    lengths = 1 + np.searchsorted(hits, [max(1, round(recall * hits[-1])) for recall in _RECALLS])
    return Curve(
        f"{data}, {kind} noise",
        ranked.method,
        _RECALLS,
        [float(hits[n - 1] / n) for n in lengths],
        "share of the errors found",
        "share right among those looked at",
        ours=ranked.ours,
    )


def _check(setting: Setting) -> tuple[tuple[str, ...], RawInputs, Labels, int]:
    """Kinds of noise, the labelled training examples, their classes from 0 on, and the number of classes."""
    kinds = tuple(part.strip() for part in str(PROTOCOL.option(setting, "kinds")).split(","))
    if not kinds or not set(kinds) <= set(KINDS):
        raise UsageError(
            f"`kinds` must be names of {', '.join(KINDS)}, got {','.join(kinds)!r}. Leave it out for both."
        )
    share, wanted = float(PROTOCOL.option(setting, "share")), int(PROTOCOL.option(setting, "examples"))
    if not 0 < share < 1:
        raise UsageError(f"`share` must lie in (0, 1), got {share}. 0.05 changes one label in twenty.")
    rows = np.flatnonzero(setting.data.y_train >= 0)
    if 0 < wanted < len(rows):  # drawn, since data may be sorted by class
        rows = np.sort(np.random.default_rng(0).choice(rows, wanted, replace=False))
    if len(rows) < 100:
        raise UsageError(
            f"`data` must have at least 100 labelled training examples, got {len(rows)}. Name another data set."
        )
    classes, y = np.unique(setting.data.y_train[rows], return_inverse=True)
    if len(classes) < 2:
        raise UsageError("`data` must have at least two classes, got one. Name another data set.")
    return kinds, setting.data.x_train[rows], y.astype(np.int64), len(classes)


def _named(progress: Progress, kind: str) -> Progress:
    """Progress whose steps name the kind of noise."""
    return lambda step, share: progress(f"{kind}: {step}", share)


PROTOCOL = Protocol(
    name="label-errors",
    title="Wrong labels",
    about=(
        "A share of the training labels (5 %) is changed, to any other class alike (uniform) or to the class that it "
        "is mistaken for (pairs), and every method ranks all training examples by how suspicious their labels are. "
        "Average precision and AUROC judge the ranking; right among as many as there are errors needs their number to "
        "be known; listed is what a method itself calls wrong, with the share that is right and the share of all "
        "errors in it. Seconds leave out the training of the features, which neighbours and logistic regression need. "
        "Injected errors are far easier to find than real ones."
    ),
    columns=COLUMNS,
    headline="ap",
    peers=tuple(PEERS),
    defaults={
        "share": 0.05,
        "kinds": "uniform,pairs",
        "examples": 40_000,
        "folds": 5,
        "neighbours": 20,
        "long_folds": False,
    },
    run_seed=run_seed,
    backbone="cnn",
)
