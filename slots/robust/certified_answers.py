"""Answers that count as matched only where no change of a size can have made the match: `predict_certified`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from slots.errors import UsageError
from slots.features.preprocessing import raw_inputs
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.robust.certificate import Certificate, certify
from slots.robust.config import Norm
from slots.robust.nearest_slot import Box, Method
from slots.shapes import RawInputs

Decision = Literal["match", "nearest"]
"""Which decision must hold: that a slot of the label answers, or which slot is the nearest."""


def predict_certified(
    model: SlotModel,
    x: RawInputs,
    size: float,
    *,
    norm: Norm = "l2",
    of: Decision = "match",
    box: Box | None = None,
    method: Method | None = None,
) -> Prediction:
    """Answer raw inputs that somebody may have changed; only what such a change cannot have made counts as matched.

    Parameters
    ----------
    model : SlotModel
        One that `slots.certify` takes.
    x : array
        uint8 images or float features, as the model was fitted on.
    size : float
        Largest change that anybody can have made, >= 0, in units of the scaled input: pixels lie in [0, 1].
    norm : {"l2", "linf"}, default "l2"
        How a change is measured: by Euclidean length, or by the largest entry.
    of : {"match", "nearest"}, default "match"
        Which decision must hold at that size; see `certified_answers`.
    box, method
        As `slots.certify` takes them.

    Returns
    -------
    Prediction
        That of `SlotModel.predict`, but matched answers that are not certified are ``UNMATCHED``; their label, slot and
        margins stay.

    Raises
    ------
    UsageError
        If the size is negative or no number, or the model cannot be certified.
    DataError
        If ``x`` is not what the model was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.robust import RobustConfig
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[3, 0], [4, 0.1], [0, 3], [0.1, 4]], dtype=np.float32)
    >>> config = TrainConfig(epochs=2, slots_per_class=1, robust=RobustConfig(radius=1.0))
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=config)
    >>> [int(predict_certified(model, x, size, of="nearest").matched.sum()) for size in (0.0, 1.0, 3.0)]
    [4, 4, 0]
    """
    if not 0 <= size < math.inf:
        raise UsageError(f"`size` must be a number >= 0, got {size}. It is the largest change that is to be withstood.")
    _check_decision(of)
    x = raw_inputs(x)
    told = model.predict(x)
    asked = np.flatnonzero(told.matched)
    found = certified_answers(certify(model, x[asked], norm=norm, box=box, method=method), size, of=of)
    answers = np.full_like(told.answers, Answer.UNMATCHED)
    answers[asked] = found.answers
    return replace(told, answers=answers)


def certified_answers(found: Certificate, size: float, *, of: Decision = "match") -> Prediction:
    """The answers of a certificate, of which only those count as matched that no change of a size can have made.

    Parameters
    ----------
    found : Certificate
        Of inputs that may have been changed.
    size : float
        Largest change that anybody can have made, >= 0, measured as the certificate is.
    of : {"match", "nearest"}, default "match"
        ``match``: the answer is matched and stays so, with its label. ``nearest``: the answer is matched, and the
        nearest slots have its label and keep it. The second is proved at larger sizes.

    Returns
    -------
    Prediction
        Matched answers that are not certified are ``UNMATCHED``; all else stays.

    Raises
    ------
    UsageError
        If ``of`` is another word.

    Notes
    -----
    Let ``x`` be shown, made from ``z`` with ``|x - z| <= size``. Where a radius at ``x`` is larger than the size, ``z``
    lies inside the ball that it speaks of, so what is certified at ``x`` is the case at ``z``.

    **match**: `Certificate.matched_radii` at ``x`` says that every point of the ball is matched with the label of
    ``x``; so ``z`` is. An input that is matched rightly is never turned into a wrong answer that counts as matched.
    And under any attack of that size no more answers are wrong and count as matched than were wrong and matched
    before it: what a fit vouches for among untouched inputs bounds them.

    **nearest**: every point of the ball has a nearest slot of that label; so ``z`` has. No more answers are wrong and
    count as matched than had a wrong nearest slot before. `Certificate.certified` is this without the match.
    """
    _check_decision(of)
    sure = found.matched_radii > size if of == "match" else found.certified(size)
    told = found.prediction
    return replace(told, answers=np.where(sure, told.answers, np.int8(Answer.UNMATCHED)).astype(np.int8))


def _check_decision(of: Decision) -> None:
    if of not in get_args(Decision):
        raise UsageError(f"`of` must be match or nearest, got {of!r}. Choose the decision that shall hold.")
