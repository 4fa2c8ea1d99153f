"""Answers and models as rows that a person or a program reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from protocols.data.images import load_images
from protocols.pages.environment import csv_text
from protocols.summaries.intervals import wilson_lower
from slots.errors import DataError
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import Ids

COLUMNS = ("input", "label", "answer", "slot", "margin", "runner_up", "runner_up_slot", "runner_up_margin")
"""Columns of the CSV; margins in radians, empty where there is no runner-up."""


def load_inputs(
    model: SlotModel, files: Sequence[Path], x: npt.NDArray[Any] | None
) -> tuple[list[str], npt.NDArray[Any]]:
    """Inputs and their names: image files in the model's size, or the rows of a data set.

    Parameters
    ----------
    model : SlotModel
        Says what size and channels pictures must have.
    files : sequence of path
        Used when ``x`` is None.
    x : array, optional
        Rows of a data set, used as they are. Default: the files are read.

    Returns
    -------
    names : list of str
        File names, or row numbers.
    x : array of shape (example, ...)
    """
    if x is not None:
        return [str(row) for row in range(len(x))], x
    if model.preprocessing.kind != "images":
        raise DataError("`images` must be left out for a model of feature rows. Pass --data with an .npz archive.")
    channels, height, width = model.preprocessing.shape
    return [str(file) for file in files], load_images(list(files), shape=(height, width, channels))


def true_labels(model: SlotModel, data: Dataset, y: Ids) -> Ids:
    """The data's labels as label ids of the model, by name.

    Parameters
    ----------
    model : SlotModel
        Its label names decide. Where it knows none of the data's names and these are bare numbers, the numbers are ids.
    data : Dataset
        Gives its labels their names.
    y : int64 array of shape (example,)
        Labels of one of its parts, -1 where unknown.

    Returns
    -------
    int64 array of shape (example,)
        -1 where unknown, -2 and below for names that the model lacks.
    """
    ids = model.labels.ids(data.class_names)
    if len(ids) == 0:
        return np.full(len(y), -1, np.int64)
    if (ids < 0).all() and data.class_names == tuple(map(str, range(len(ids)))):
        ids = np.arange(len(ids))
    ids = np.where(ids >= 0, ids, -2 - np.arange(len(ids)))
    return np.where(y >= 0, ids[np.maximum(y, 0)], -1)


def answers_json(model: SlotModel, names: Sequence[str], prediction: Prediction) -> list[dict[str, Any]]:
    """One dict an input, with the keys of `COLUMNS`; None where there is no runner-up."""
    rows = []
    for i, name in enumerate(names):
        rival = int(prediction.runner_up_slots[i])
        rows.append(
            {
                "input": name,
                "label": model.class_name(int(prediction.labels[i])),
                "answer": Answer(int(prediction.answers[i])).name.lower(),
                "slot": int(prediction.slots[i]),
                "margin": _finite(prediction.margins[i]),
                "runner_up": model.class_name(int(model.head.labels[rival])) if rival >= 0 else None,
                "runner_up_slot": rival if rival >= 0 else None,
                "runner_up_margin": _finite(prediction.runner_up_margins[i]),
            }
        )
    return rows


def answers_csv(model: SlotModel, names: Sequence[str], prediction: Prediction) -> str:
    """The same as CSV with a header line."""
    return csv_text(COLUMNS, [tuple(row.values()) for row in answers_json(model, names, prediction)])


def describe(model: SlotModel) -> dict[str, Any]:
    """Size, classes, backbone and history of a model, as JSON values.

    Parameters
    ----------
    model : SlotModel
        Fitted or loaded; it is only read.

    Returns
    -------
    dict
        Sizes, thresholds, one line a class and one a generation.
    """
    head = model.head
    labels = head.labels.cpu().numpy()
    radius = np.degrees(np.arccos(np.clip(head.support_thresholds.cpu().numpy(), -1, 1)))
    seen, right = head.held_out.cpu().sum(0).tolist()
    classes = []
    for label in np.unique(labels):
        mine = labels == label
        all_seen, all_right = head.held_out.cpu().numpy()[mine].sum(0).tolist()
        classes.append(
            {
                "class": model.class_name(int(label)),
                "slots": int(mine.sum()),
                "matched_in_training": int(head.hits.cpu().numpy()[mine].sum()),
                "median_radius_degrees": round(float(np.median(radius[mine])), 1),
                "held_out_precision": all_right / all_seen if all_seen else None,
            }
        )
    fitted = model.history[0].figures if model.history else {}
    return {
        "slots": head.n_slots,
        "features": head.feature_dim,
        "backbone": model.backbone_spec[0] if model.backbone_spec else "none",
        "input": "x".join(map(str, model.preprocessing.shape)),
        "views": f"{model.views.spec} ({model.views.n_views})",
        "fitted_on": fitted.get("data"),
        "train_matched": fitted.get("train_matched"),
        "test_accuracy": fitted.get("test_accuracy"),
        "held_out_matches": seen,
        "held_out_precision": right / seen if seen else None,
        "held_out_bound": wilson_lower(right, seen),
        "classes": classes,
        "history": [{"number": g.number, "what": g.what, "n_slots": g.n_slots} for g in model.history],
    }


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
