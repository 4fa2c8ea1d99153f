"""The report page of a model: its slots, what they got right on examples that trained nothing, and what came since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from protocols.pages import cards
from protocols.pages.environment import render_page
from protocols.pages.plots.reliability import reliability_plots
from protocols.summaries.evaluation import confusion
from protocols.summaries.fit import NOT_MEASURED, FitSummary
from protocols.summaries.reliability import Reliability
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.storage.atomic import write_text
from slots.storage.generations import LogEntry

MATRIX = 25
"""Classes up to which the whole confusion matrix is shown; beyond, the largest confusions."""

_HIGHLIGHTS, _CONFUSIONS, _WRONG, _UNMATCHED, _CONTRADICTIONS = 20, 40, 40, 60, 24  # shown at most


@dataclass(frozen=True)
class OutcomeRow:
    """One kind of outcome on the test part: its name in the page's style, its words, how many, and their share."""

    kind: str
    words: str
    count: int
    share: float


@dataclass(frozen=True)
class ClassRow:
    """One class: its slots and how its test examples fared (shares in [0, 1], None without any)."""

    name: str
    slots: int
    slot_share: float
    n_test: int
    matched: float | None
    right: float | None
    held_out_seen: int
    held_out_right: int
    radius: float | None


@dataclass(frozen=True)
class Cell:
    """One field of the confusion matrix: on its diagonal or off it, count, share of the row, strength of the colour."""

    kind: str
    count: int
    share: float
    strength: float


@dataclass(frozen=True)
class Confusion:
    """Test examples of one class that got one other class as answer."""

    truth: str
    answer: str
    count: int
    share: float


@dataclass(frozen=True)
class Occasion:
    """Why a page is written after the fit, and what a reader must know to read its figures.

    Parameters
    ----------
    tested_on : str
        Name of the data whose labelled examples were measured; empty where none were.
    is_own : bool
        Whether this is the test part of the data of the fit.
    notes : tuple of str
        Sentences that come before all figures.
    history : sequence of LogEntry
        The generations, oldest first.
    """

    tested_on: str
    is_own: bool = True
    notes: tuple[str, ...] = ()
    history: Sequence[LogEntry] = ()


def write_report(
    model: SlotModel,
    data: Dataset,
    prediction: Prediction,
    summary: FitSummary,
    path: Path,
    *,
    occasion: Occasion | None = None,
    reliability: Reliability | None = None,
) -> None:
    """Write the page beside the model; it asks for no other file and no network.

    Parameters
    ----------
    model : SlotModel
        As it is now.
    data : Dataset
        Its training part is what the model was fitted on, or empty where that is not at hand; its test part is what is
        measured, with labels of the model.
    prediction : Prediction
        Of the labelled test examples, in their order.
    summary : FitSummary
        What the fit reached, with the figures of this test part.
    path : Path
        An older page there is replaced when the new one is complete.
    occasion : Occasion, optional
        What a page after the fit says more. Default: the fit itself writes it.
    reliability : Reliability, optional
        What its plots show. Default: it has none.

    Raises
    ------
    ValueError
        If there are more or fewer answers than labelled test examples.
    StorageError
        If it cannot be written.
    """
    write_text(path, render(model, data, prediction, summary, occasion=occasion, reliability=reliability))


def render(
    model: SlotModel,
    data: Dataset,
    prediction: Prediction,
    summary: FitSummary,
    *,
    occasion: Occasion | None = None,
    reliability: Reliability | None = None,
) -> str:
    """The page as text; see `write_report`."""
    labelled = data.y_test >= 0
    x, y = data.x_test[labelled], data.y_test[labelled]
    if len(y) != len(prediction):
        raise ValueError(
            f"`prediction` must hold one answer for each of {len(y)} labelled test examples, got {len(prediction)}. "
            "Predict data.x_test[data.y_test >= 0]."
        )
    right, matched = prediction.labels == y, prediction.matched
    wrong = np.flatnonzero(matched & ~right)
    surest = wrong[np.argsort(-prediction.margins[wrong], kind="stable")][:_WRONG]
    unmatched = np.flatnonzero(~matched)
    sample = cards.evenly(unmatched, _UNMATCHED)
    sample = sample[np.argsort(right[sample], kind="stable")]
    shown = cards.gallery_slots(model)
    groups = _by_class(cards.slot_cards(model, data.x_train, shown))
    n_classes = _n_classes(model, y)
    in_full = n_classes <= MATRIX
    confusions, n_confusions = largest_confusions(model, y, prediction.labels)
    return render_page(
        "report.html",
        summary=summary,
        occasion=occasion,
        tested=_tested(occasion),
        plots=[] if reliability is None else reliability_plots(reliability, tested=_tested(occasion)),
        n_unplotted=0 if reliability is None else reliability.n_left_out,
        vouched=str(summary.vouching or NOT_MEASURED),
        tried=summary.look.table(most=len(summary.look.tries)) if summary.look else [],
        used=summary.look.sentence() if summary.look else "",
        is_text=data.kind == "text",
        noun="text" if data.kind == "text" else "example",
        model=model,
        backbone=model.backbone_spec[0] if model.backbone_spec else "none",
        outcomes=outcomes(prediction, right),
        classes=class_rows(model, y, prediction),
        groups=groups,
        highlights=[slots[0] for _, slots in groups[:_HIGHLIGHTS]],
        n_shown=len(shown),
        shown=set(shown.tolist()),
        n_classes=n_classes,
        names=[model.class_name(label) for label in range(n_classes if in_full else 0)],
        matrix=_matrix(confusion(prediction, y, n_classes)) if in_full else None,
        confusions=confusions,
        n_confusions=n_confusions,
        n_test=len(y),
        wrong=cards.example_cards(model, x, y, prediction, surest),
        n_wrong=len(wrong),
        unmatched=cards.example_cards(model, x, y, prediction, sample),
        n_unmatched=len(unmatched),
        n_guessed=int(right[unmatched].sum()),
        contradictions=cards.contradiction_pictures(
            model, data.x_train, data.y_train, summary.contradictions[:_CONTRADICTIONS]
        )
        if len(data.x_train)
        else [],
    )


def _tested(occasion: Occasion | None) -> str:
    """What was measured, in words that follow *on*."""
    return "the test part" if occasion is None or occasion.is_own else occasion.tested_on


def outcomes(prediction: Prediction, right: npt.NDArray[np.bool_]) -> list[OutcomeRow]:
    """Counts of the five outcomes, which add up to the whole test part."""
    sure, ambiguous = prediction.matched & ~prediction.ambiguous, prediction.ambiguous
    kinds = (
        ("sure", "matched, right", sure & right),
        ("fault", "matched, wrong", sure & ~right),
        ("torn", "ambiguous: slots of several classes fire", ambiguous),
        ("guess", "unmatched, the guess is right", ~prediction.matched & right),
        ("miss", "unmatched, the guess is wrong", ~prediction.matched & ~right),
    )
    n = max(1, len(prediction))
    return [OutcomeRow(kind, words, int(mask.sum()), float(mask.sum()) / n) for kind, words, mask in kinds]


def class_rows(model: SlotModel, y: npt.NDArray[np.int64], prediction: Prediction) -> list[ClassRow]:
    """One row a class that has slots or test examples, in the order of labels."""
    head = model.head
    labels, held_out = head.labels.cpu().numpy(), head.held_out.cpu().numpy()
    cosines = head.support_thresholds.cpu().numpy().astype(np.float64)
    present = np.union1d(labels, y)
    most = max(1, max((int((labels == label).sum()) for label in present), default=1))
    rows = []
    for label in present.tolist():
        mine, test = labels == label, y == label
        limited = mine & (np.abs(cosines) <= 1)
        seen, right = held_out[mine].sum(0).tolist()
        rows.append(
            ClassRow(
                name=model.class_name(label),
                slots=int(mine.sum()),
                slot_share=float(mine.sum()) / most,
                n_test=int(test.sum()),
                matched=float(prediction.matched[test].mean()) if test.any() else None,
                right=float((prediction.labels[test] == label).mean()) if test.any() else None,
                held_out_seen=seen,
                held_out_right=right,
                radius=float(np.degrees(np.median(np.arccos(cosines[limited])))) if limited.any() else None,
            )
        )
    return rows


def largest_confusions(
    model: SlotModel, y: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], *, limit: int = _CONFUSIONS
) -> tuple[list[Confusion], int]:
    """The most frequent wrong answers, found without a matrix: labels may be many, and far apart.

    Parameters
    ----------
    model : SlotModel
        Gives the labels their names.
    y, answers : int64 array of shape (example,)
        True labels, and the answers.
    limit : int
        Rows at most (count, >= 0).

    Returns
    -------
    largest : list of Confusion
        Most frequent first, ties by label; shares are of the true class.
    n : int
        How many there are.
    """
    wrong = y != answers
    if not wrong.any():
        return [], 0
    pairs, counts = np.unique(np.stack([y[wrong], answers[wrong]]), axis=1, return_counts=True)
    totals = dict(zip(*(it.tolist() for it in np.unique(y, return_counts=True)), strict=True))
    order = np.argsort(-counts, kind="stable")[:limit]
    found = [
        Confusion(model.class_name(truth), model.class_name(answer), count, count / totals[truth])
        for (truth, answer), count in zip(pairs.T[order].tolist(), counts[order].tolist(), strict=True)
    ]
    return found, len(counts)


def _matrix(counts: npt.NDArray[np.int64]) -> list[list[Cell]]:
    """Cells of the confusion matrix; few wrong answers are shown stronger than their share, or nobody saw them."""
    totals = np.maximum(counts.sum(axis=1), 1)
    return [
        [
            Cell("hit", int(count), count / total, count / total)
            if truth == answer
            else Cell("off", int(count), count / total, float(0.06 + 0.94 * (count / total) ** 0.5))
            for answer, count in enumerate(row)
        ]
        for truth, (row, total) in enumerate(zip(counts, totals, strict=True))
    ]


def _n_classes(model: SlotModel, y: npt.NDArray[np.int64]) -> int:
    """One more than the largest label that has a slot, a test example or a name."""
    return max(len(model.class_names), 1 + int(model.head.labels.max()), 1 + int(y.max(initial=-1)))


def _by_class(slots: list[cards.SlotCard]) -> list[tuple[str, list[cards.SlotCard]]]:
    """Cards grouped by class, in the order they come in."""
    groups: dict[str, list[cards.SlotCard]] = {}
    for card in slots:
        groups.setdefault(card.name, []).append(card)
    return list(groups.items())
