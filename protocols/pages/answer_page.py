"""The page of ``slots explain MODEL IMAGE``: an answer, the patches it is made of, and what it was compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from torch import Tensor

from protocols.pages.cards import Picture, exemplar_picture, picture
from protocols.pages.environment import render_page
from protocols.pages.pictures import diverging, signed_sum
from protocols.pages.plots.boxes import boxed, share_bar
from protocols.pages.saliency import held_gradient
from protocols.summaries.answers import ExplainedAnswer
from slots.model.slot_model import SlotModel
from slots.parts.backbone import PartsBackbone

_SIDE: Final = 252
_PATCH: Final = 66
_OUTLINED: Final = 8
"""Parts drawn of one answer; slots that an update added may have hundreds."""


@dataclass(frozen=True)
class AnswerView:
    """An input with its answer.

    Parameters
    ----------
    image : uint8 array of shape (height, width, channel)
        As the model sees it.
    explained : ExplainedAnswer
        What is said of it.
    """

    image: npt.NDArray[Any]
    explained: ExplainedAnswer


@dataclass(frozen=True)
class _PartRow:
    """One line of the sum."""

    number: int
    found: Picture
    patch: Picture | None
    source: str
    percent: float
    bar: Markup


def answer_page(model: SlotModel, views: Sequence[AnswerView], *, title: str) -> str:
    """A page of answers.

    Parameters
    ----------
    model : SlotModel
        That gave them.
    views : sequence of AnswerView
        In the order they are shown.
    title : str
        Name of the model.

    Returns
    -------
    str
        HTML that asks for no other file and no network.
    """
    shown = []
    for number, view in enumerate(views):
        it = view.explained
        image = picture(view.image, f"The input {it.name}", shown_side=_SIDE)
        rows = _part_rows(model, view)
        shown.append(
            {
                "id": f"input-{number}",
                "it": it,
                "picture": boxed(image, view.image.shape[:2], [part.box for part in it.parts[:_OUTLINED]]),
                "rows": rows,
                "more": len(it.parts) - len(rows),
                "rest": sum(part.share for part in it.parts[_OUTLINED:]) / it.cosine if it.cosine else 0.0,
                "template": None if it.parts else _template(model, view),
                "exemplar": exemplar_picture(model, it.slot),
                "rival": exemplar_picture(model, it.rival_slot) if it.rival_slot >= 0 else None,
            }
        )
    return render_page("answers.html", answers=shown, title=title, has_parts=isinstance(model.backbone, PartsBackbone))


def _part_rows(model: SlotModel, view: AnswerView) -> list[_PartRow]:
    """Lines of the sum, with what was found and the training patch it was recognised by."""
    it = view.explained
    if not it.parts or not isinstance(model.backbone, PartsBackbone):
        return []
    largest = it.parts[0].share
    rows = []
    for number, part in enumerate(it.parts[:_OUTLINED], 1):
        top, left, bottom, right = part.box
        found = picture(np.ascontiguousarray(view.image[top:bottom, left:right]), f"Patch {number}", shown_side=_PATCH)
        source = ""
        if part.source is not None:
            source = f"of training image {part.source[0]}, at row {part.source[1]} and column {part.source[2]}"
        rows.append(
            _PartRow(
                number,
                found,
                _patch_picture(model, part.part, part.source is not None),
                source,
                part.share / it.cosine if it.cosine else 0.0,
                share_bar(part.share / largest, number),
            )
        )
    return rows


def _patch_picture(model: SlotModel, part: int, is_patch: bool) -> Picture | None:
    """The training patch that a part is; None where it is a channel."""
    if not is_patch:
        return None
    assert isinstance(model.backbone, PartsBackbone)
    return picture(
        _unscaled(model, model.backbone.patches[part]), f"Part {part}, a patch of a training image", shown_side=_PATCH
    )


def _unscaled(model: SlotModel, patch: Tensor) -> npt.NDArray[np.uint8]:
    """A scaled patch of shape (channel, height, width) as pixels again."""
    scaled = patch.detach().float().cpu().permute(1, 2, 0).numpy()
    if model.preprocessing.mean:
        scaled = scaled * np.array(model.preprocessing.std, np.float32) + np.array(model.preprocessing.mean, np.float32)
    return np.asarray((scaled.clip(0, 1) * 255).round(), np.uint8)


def _template(model: SlotModel, view: AnswerView) -> Picture | None:
    """What the slot's weight asks for, drawn on the input."""
    x = model.preprocessing(view.image[None], model.device)
    weights = model.featurizer.directions(model.head.weights.detach()[[view.explained.slot]])
    drawn = held_gradient(model.backbone, x, weights)[0].float().cpu().numpy()
    said = "What the slot looks for in this input: red for it, blue against it"
    return picture(diverging(signed_sum(drawn)), said, shown_side=_SIDE)
