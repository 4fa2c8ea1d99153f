"""What ``slots explain MODEL IMAGE`` does: answers, what they are made of, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protocols.data.dataset import Dataset
from protocols.pages.answer_page import AnswerView, answer_page
from protocols.summaries.answers import AnswersSummary, ExplainedAnswer, ExplainedPart
from slots.errors import UsageError
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.parts.backbone import PartsBackbone
from slots.parts.shares import PartsOfAnswer, explain_by_parts
from slots.storage.atomic import write_text

MOST: Final = 60
"""Inputs of one page."""


def some_inputs(data: Dataset, count: int, *, seed: int = 0) -> tuple[list[str], npt.NDArray[Any]]:
    """Inputs of a data set drawn at random, of its test part where it has one, and what they are called."""
    part, x = ("test", data.x_test) if len(data.x_test) else ("train", data.x_train)
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:count])
    return [f"{data.name} {part} {row}" for row in rows], x[rows]


def explain_answers(
    model: SlotModel, names: Sequence[str], x: npt.NDArray[Any], *, folder: Path, out: Path
) -> AnswersSummary:
    """Answer some images, and write a page that says why.

    Parameters
    ----------
    model : SlotModel
        Of images.
    names : sequence of str
        What the inputs are called.
    x : uint8 array of shape (example, height, width, channel)
        The inputs, in the model's size.
    folder : Path
        The model folder.
    out : Path
        The page.

    Returns
    -------
    AnswersSummary

    Raises
    ------
    UsageError
        If the model is none of images, there are no inputs or too many, or the page would be a folder.
    """
    if out.is_dir():
        raise UsageError(f"`--out` must be a file, got the folder {str(out)!r}. Add a name, such as explain.html.")
    if model.preprocessing.kind != "images":
        raise UsageError(f"Answers are explained for images, got a model of {model.preprocessing.kind}. Ask --unit.")
    if not 1 <= len(x) <= MOST:
        raise UsageError(f"A page explains 1 to {MOST} images, got {len(x)}. Name fewer of them.")
    model.preprocessing.check(x)
    answers = model.predict(x)
    has_parts = isinstance(model.backbone, PartsBackbone) and model.views.n_views == 1
    parts = explain_by_parts(model, x) if has_parts else [None] * len(x)
    explained = [_explained(model, name, answers, row, parts[row]) for row, name in enumerate(names)]
    views = [AnswerView(x[row], it) for row, it in enumerate(explained)]
    write_text(out, answer_page(model, views, title=folder.resolve().name))
    return AnswersSummary(1, str(folder), str(out), tuple(explained))


def _explained(
    model: SlotModel, name: str, answers: Prediction, row: int, parts: PartsOfAnswer | None
) -> ExplainedAnswer:
    slot, rival = int(answers.slots[row]), int(answers.runner_up_slots[row])
    return ExplainedAnswer(
        name=name,
        label=model.class_name(int(answers.labels[row])),
        answer=Answer(int(answers.answers[row])).name.lower(),
        slot=slot,
        exemplar=int(model.head.exemplars[slot, 0]),
        rival=model.class_name(int(model.head.labels[rival])) if rival >= 0 else None,
        rival_slot=rival,
        parts_of=slot if parts is None else parts.slot,
        cosine=None if parts is None else parts.cosine,
        parts=()
        if parts is None
        else tuple(ExplainedPart(it.part, it.box, it.share, it.source) for it in parts.shares),
    )
