"""What ``slots certify`` does: radii of a model's answers, one row an input, and the shares that hold at a radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from protocols.pages.environment import csv_text
from slots.errors import DataError, UsageError
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.robust.certificate import Certificate, certify
from slots.robust.certified_answers import predict_certified
from slots.robust.certified_features import keeps_inputs
from slots.robust.config import Norm
from slots.robust.nearest_slot import Method
from slots.shapes import Ids, RawInputs

COLUMNS = (
    "input", "label", "answer", "radius", "matched_radius", "vouched_radius", "nearest_label", "nearest_radius",
    "rival_slot",
)  # fmt: skip
"""Columns of the CSV; radii in units of the scaled input, empty where nothing limits them."""


@dataclass(frozen=True)
class CertifiedShares:
    """Shares of inputs for which something holds whatever a change of a size does; each in [0, 1].

    Parameters
    ----------
    radius : float
        The size of the change.
    label : float
        The answer's label stays, and is right where labels are known.
    nearest : float
        The label of the nearest slots stays, and is right: what is certified of classifiers without a match rule.
    matched : float
        The answer stays matched, with its label, and is right.
    never_wrong : float
        No slot of another than the right label can answer: such an input is matched rightly or not at all. Where labels
        are unknown: of another label than the answer's.
    """

    radius: float
    label: float
    nearest: float
    matched: float
    never_wrong: float


@dataclass(frozen=True)
class Certified:
    """Certificates of some inputs, and their summary.

    Parameters
    ----------
    certificate : Certificate
        Of each input.
    shares : tuple of CertifiedShares
        One a radius, ascending.
    accuracy : float or None
        Right answers, in [0, 1]; None where no labels are known.
    method : str
        How radii were found.
    """

    certificate: Certificate
    shares: tuple[CertifiedShares, ...]
    accuracy: float | None
    method: str


def certify_inputs(
    model: SlotModel,
    x: RawInputs,
    labels: Ids,
    *,
    norm: Norm = "l2",
    radii: Sequence[float] = (),
    method: Method | None = None,
) -> Certified:
    """Certify a model's answers, and count what holds at some radii.

    Parameters
    ----------
    model : SlotModel
        On pixels or feature rows, or behind the backbone lipschitz.
    x : array of shape (example, ...)
        Inputs.
    labels : int64 array of shape (example,)
        Right labels as ids of the model. Where any is -1, all count as unknown.
    norm : {"l2", "linf"}, default "l2"
        How changes are measured.
    radii : sequence of float
        Sizes to count at, >= 0. Default: 0.5, 1, 1.58 and 2 for l2; 0.05, 0.1, 0.2 and 0.3 for linf.
    method : {"pair", "box", "dual"}, optional
        Default: the box for images, else pairs.

    Returns
    -------
    Certified

    Raises
    ------
    DataError
        If there are no inputs.
    UsageError
        If a radius is negative, or the model cannot be certified.
    """
    if len(x) == 0:
        raise DataError("`data` must hold inputs, got none in this part. Try the other --part.")
    sizes = sorted(set(radii)) or ([0.5, 1.0, 1.58, 2.0] if norm == "l2" else [0.05, 0.1, 0.2, 0.3])
    if sizes[0] < 0 or not math.isfinite(sizes[-1]):
        raise UsageError(f"`radius` must be a number >= 0, got {radii}. Try --radius 1.")
    found = certify(model, x, norm=norm, method=method)
    known = bool((labels != -1).all())
    right = found.prediction.labels == labels if known else np.ones(len(labels), bool)
    nearest = found.nearest_labels == labels if known else np.ones(len(labels), bool)
    shares = tuple(
        CertifiedShares(
            radius=size,
            label=float((right & (found.radii > size)).mean()),
            nearest=float((nearest & (found.nearest_radii > size)).mean()),
            matched=float((right & (found.matched_radii > size)).mean()),
            never_wrong=float((right & (found.vouched_radii > size)).mean()),
        )
        for size in sizes
    )
    used = method or ("box" if model.preprocessing.kind == "images" and keeps_inputs(model) else "pair")
    return Certified(found, shares, float(right.mean()) if known else None, used)


def parse_change(word: str) -> tuple[Norm, float]:
    """A norm and the size of a change, from a word of a command line.

    Parameters
    ----------
    word : str
        ``l2:0.5`` or ``linf:0.1``.

    Raises
    ------
    UsageError
        If it is anything else, or the size is no number >= 0.

    Examples
    --------
    >>> parse_change("linf:0.1")
    ('linf', 0.1)
    """
    norm, _, size = word.partition(":")
    try:
        found = float(size)
    except ValueError:
        found = math.nan
    if norm not in get_args(Norm) or not 0 <= found < math.inf:
        raise UsageError(f"`certified` must be l2:SIZE or linf:SIZE, got {word!r}. Try l2:0.5 or linf:0.1.")
    return norm, found  # type: ignore[return-value]  # looked at above


def predict_certified_by(model: SlotModel, x: RawInputs, word: str, *, of: str = "match") -> Prediction:
    """Answers of which only those count as matched that a change cannot have made.

    Parameters
    ----------
    model : SlotModel
        One that can be certified.
    x : array of shape (example, ...)
        Inputs.
    word : str
        As `parse_change` takes it.
    of : str, default "match"
        Which decision must hold; see `slots.certified_answers`.

    Raises
    ------
    UsageError
        If a word is another, or the model cannot be certified.
    """
    norm, size = parse_change(word)
    return predict_certified(model, x, size, norm=norm, of=of)  # type: ignore[arg-type]  # it checks the word itself


def certified_rows(model: SlotModel, found: Certificate, files: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One dict an input, with the keys of `COLUMNS`; None where nothing limits a radius.

    Inputs have numbers, or the names of their ``files``.
    """
    return [
        {
            "input": files[i] if files else i,
            "label": model.class_name(int(found.prediction.labels[i])),
            "answer": Answer(int(found.prediction.answers[i])).name.lower(),
            "radius": _finite(found.radii[i]),
            "matched_radius": _finite(found.matched_radii[i]),
            "vouched_radius": _finite(found.vouched_radii[i]),
            "nearest_label": model.class_name(int(found.nearest_labels[i])),
            "nearest_radius": _finite(found.nearest_radii[i]),
            "rival_slot": int(found.rivals[i]),
        }
        for i in range(len(found))
    ]


def certified_csv(model: SlotModel, found: Certificate, files: Sequence[str] = ()) -> str:
    """The rows as CSV with a header line."""
    return csv_text(COLUMNS, [tuple(row.values()) for row in certified_rows(model, found, files)])


def _finite(radius: float) -> float | None:
    """Rounded down, so that it still holds."""
    return math.floor(radius * 1e6) / 1e6 if math.isfinite(radius) else None
