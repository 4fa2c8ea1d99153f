"""What ``slots ood`` does: judge inputs, and write what was found as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from protocols.app.answers import with_texts
from protocols.pages.environment import csv_text
from slots.errors import DataError
from slots.model.slot_model import SlotModel
from slots.novelty.assessment import Novelty
from slots.shapes import RawInputs

COLUMNS = ("input", "score", "p_value", "novel", "nearest_slot", "nearest_label", "reason")
"""Columns of the CSV; a higher score is more novel."""


def assess_inputs(
    model: SlotModel, x: RawInputs, *, false_alarm_rate: float, familiar: RawInputs | None = None
) -> Novelty:
    """Conformal p-values of novelty, by the model's own calibration or by one on other familiar inputs.

    Parameters
    ----------
    model : SlotModel
        Fitted with enough examples to know what is familiar.
    x : array of shape (example, ...)
        Inputs to judge, as the model was fitted on.
    false_alarm_rate : float in (0, 1)
        Largest share of familiar inputs that may be called novel.
    familiar : array of shape (example, ...), optional
        Inputs like the training data that the model was never shown. The model is left as it is.

    Returns
    -------
    Novelty

    Raises
    ------
    DataError
        If there are no inputs, or they are not what the model takes.
    UsageError
        If the model has no calibration, or it is too small for the rate.
    """
    if len(x) == 0:
        raise DataError("`data` must hold inputs, got none in this part. Try the other --part.")
    return model.assess_novelty(x, false_alarm_rate=false_alarm_rate, calibration=familiar)


def novelty_rows(
    model: SlotModel, found: Novelty, x: npt.NDArray[Any], files: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One dict an input, with the keys of `COLUMNS`, and ``text`` for texts; inputs have numbers, or names of files."""
    labels = model.head.labels.cpu().numpy()
    rows = [
        {
            "input": files[i] if files else i,
            "score": round(float(found.scores[i]), 6),
            "p_value": round(float(found.p_values[i]), 6),
            "novel": bool(found.novel[i]),
            "nearest_slot": int(found.nearest[i]),
            "nearest_label": model.class_name(int(labels[found.nearest[i]])),
            "reason": str(found.reasons[i]),
        }
        for i in range(len(found))
    ]
    return with_texts(COLUMNS, rows, x)[1]


def novelty_csv(model: SlotModel, found: Novelty, x: npt.NDArray[Any], files: Sequence[str] = ()) -> str:
    """The rows as CSV with a header line."""
    columns, _ = with_texts(COLUMNS, [], x[:0])
    return csv_text(columns, [tuple(row.values()) for row in novelty_rows(model, found, x, files)])


def novelty_json(
    model: SlotModel, found: Novelty, x: npt.NDArray[Any], *, false_alarm_rate: float, files: Sequence[str] = ()
) -> dict[str, Any]:
    """The rows and their summary as one document."""
    return {
        "false_alarm_rate": false_alarm_rate,
        "n_inputs": len(found),
        "n_novel": int(found.novel.sum()),
        "share_novel": float(found.novel.mean()),
        "inputs": novelty_rows(model, found, x, files),
    }
