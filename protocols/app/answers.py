"""Answers and models as rows that a person or a program reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from protocols.data.images import load_images
from protocols.pages.environment import csv_text
from protocols.summaries.fit import NOT_MEASURED, Vouched
from protocols.summaries.intervals import wilson_lower
from slots.errors import DataError
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import Ids

COLUMNS = ("input", "label", "answer", "slot", "margin", "runner_up", "runner_up_slot", "runner_up_margin")
"""Columns of the CSV; margins in radians, empty where there is no runner-up."""


def load_inputs(
    model: SlotModel, words: Sequence[str], x: npt.NDArray[Any] | None, files: Sequence[str] = ()
) -> tuple[list[str], npt.NDArray[Any]]:
    """Inputs and their names: image files in the model's size, texts, or the rows of a data set.

    Parameters
    ----------
    model : SlotModel
        Says what size and channels pictures must have.
    words : sequence of str
        Used when ``x`` is None: names of image files, or the texts themselves for a model of text.
    x : array, optional
        Rows of a data set, used as they are. Default: the words are.
    files : sequence of str
        The file of each row, where rows are files.

    Returns
    -------
    names : list of str
        File names, or numbers of rows or texts.
    x : array of shape (example, ...)
    """
    if x is not None:
        return list(files) or [str(row) for row in range(len(x))], x
    if model.preprocessing.kind == "text":
        texts = np.empty(len(words), dtype=object)
        texts[:] = list(words)
        return [str(row) for row in range(len(words))], texts
    if model.preprocessing.kind != "images":
        raise DataError("`inputs` must be left out for a model of feature rows. Pass --data with an .npz archive.")
    channels, height, width = model.preprocessing.shape
    crop = (model.backbone_spec or ("", {}))[1].get("crop")
    shape = (height, width, channels)  # other sizes are resized, as those of a folder are
    return list(words), load_images(list(words), shape=shape, image_size=(height, width), crop=crop)


def with_texts(
    columns: tuple[str, ...], rows: list[dict[str, Any]], x: npt.NDArray[Any]
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Columns and rows about inputs, each with its text behind where the inputs are texts.

    Parameters
    ----------
    columns : tuple of str
        Keys of the rows.
    rows : list of dict
        One an input.
    x : array of shape (example, ...)
        The inputs.

    Returns
    -------
    columns : tuple of str
    rows : list of dict
    """
    if x.ndim != 1:
        return columns, rows
    return (*columns, "text"), [{**row, "text": str(text)} for row, text in zip(rows, x, strict=True)]


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


def answers_json(
    model: SlotModel, names: Sequence[str], x: npt.NDArray[Any], prediction: Prediction
) -> list[dict[str, Any]]:
    """One dict an input, with the keys of `COLUMNS`, and ``text`` for texts; None where there is no runner-up."""
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
    return with_texts(COLUMNS, rows, x)[1]


def answers_csv(model: SlotModel, names: Sequence[str], x: npt.NDArray[Any], prediction: Prediction) -> str:
    """The same as CSV with a header line."""
    columns, _ = with_texts(COLUMNS, [], x[:0])
    return csv_text(columns, [tuple(row.values()) for row in answers_json(model, names, x, prediction)])


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
                **_remembered(model, np.flatnonzero(mine)),
            }
        )
    fitted = model.history[0].figures if model.history else {}
    return {
        "slots": head.n_slots,
        "features": model.featurizer.given_dim,
        "backbone": _backbone(model),
        "input": "x".join(map(str, model.preprocessing.shape)) or model.preprocessing.kind,
        "views": f"{model.views.spec} ({model.views.n_views})",
        "vouching": fitted.get("vouching"),
        "fitted_on": fitted.get("data"),
        "train_matched": fitted.get("train_matched"),
        "test_accuracy": fitted.get("test_accuracy"),
        "held_out_matches": seen,
        "held_out_precision": right / seen if seen else None,
        "held_out_bound": wilson_lower(right, seen),
        "classes": classes,
        "history": [{"number": g.number, "what": g.what, "n_slots": g.n_slots} for g in model.history],
    }


def describe_vouching(model: SlotModel) -> str:
    """What matched answers of a model are worth, by the record of its fit: one sentence.

    Parameters
    ----------
    model : SlotModel
        Fitted or loaded; it is only read.
    """
    vouched = Vouched.of_history(model.history[0].figures) if model.history else None
    later = len(model.history) > 1 and vouched is not None
    return f"{vouched or NOT_MEASURED}{' That is of the fit, without what came later.' if later else ''}"


def _remembered(model: SlotModel, slots: Ids) -> dict[str, str]:
    """Of a model of text: the text nearest to the slot that matches most."""
    if model.thumbnails is None or model.thumbnails.dtype != object:
        return {}
    best = int(slots[model.head.hits.cpu().numpy()[slots].argmax()])
    return {"remembers": " ".join(model.thumbnails[best, 0].split())}


def _backbone(model: SlotModel) -> str:
    name, options = model.backbone_spec or ("none", {})
    return f"text:{options['model']}" if name == "text" else name


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
