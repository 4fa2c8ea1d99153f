"""Tasks of Label Studio: inputs out of them, predictions into them, and items of the inbox as tasks."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET  # documents with declarations are refused before it reads them
from xml.sax.saxutils import quoteattr

import numpy as np

from protocols.service.answering.contents import FEATURES, TEXT
from protocols.service.inbox.items import Item
from protocols.service.inbox.refusals import check_label
from slots.errors import DataError
from slots.model.slot_model import SlotModel

ITEM = "slots_item"
"""Member of a task's data that names an item of the inbox."""

_OBJECTS = {"images": ("Image", "image"), "text": ("Text", "text"), "features": ("Text", "text")}
"""By a model's kind: the tag that shows an input, and the member of a task's data that holds it."""


@dataclass(frozen=True)
class Interface:
    """Where a project shows inputs and takes labels.

    Parameters
    ----------
    from_name : str
        Name of the ``Choices`` tag.
    to_name : str
        Name of the tag that shows the input.
    value : str
        Member of a task's data that holds the input.
    """

    from_name: str = "label"
    to_name: str = "item"
    value: str = ""

    @classmethod
    def parse(cls, config: str) -> Interface:
        """Read a project's labelling configuration.

        Parameters
        ----------
        config : str
            Its XML; empty for what `config` writes.

        Returns
        -------
        Interface

        Raises
        ------
        DataError
            If it is no such document, or has no ``Choices``.
        """
        if not config.strip():
            return cls()
        if "<!" in config.replace("<!--", ""):
            raise DataError("`label_config` must be XML without declarations, got one with. Leave them out.")
        try:
            root = ET.fromstring(config)  # noqa: S314
        except (ET.ParseError, ValueError) as error:
            raise DataError(f"`label_config` must be XML: {error}. Copy it from the project's settings.") from error
        choices = next((it for it in root.iter("Choices") if it.get("name") and it.get("toName")), None)
        if choices is None:
            raise DataError("`label_config` has no <Choices name=... toName=...>. GET config of this address has one.")
        to_name = choices.get("toName", "")
        shown = next((it for it in root.iter() if it.get("name") == to_name), None)
        value = "" if shown is None else shown.get("value", "").removeprefix("$")
        return cls(choices.get("name", ""), to_name, value)


def config(model: SlotModel, names: Sequence[str]) -> str:
    """A labelling configuration for a model: its inputs, and its labels to choose from."""
    tag, value = _OBJECTS[model.preprocessing.kind]
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    return (
        f'<View>\n  <{tag} name="item" value="${value}"/>\n'
        f'  <Choices name="label" toName="item" choice="single" showInline="true">\n{choices}  </Choices>\n</View>\n'
    )


def task_input(model: SlotModel, data: Mapping[str, Any], interface: Interface) -> Any:
    """What a task shows, as `POST predict` takes it; None where it lies elsewhere: nothing is fetched.

    Parameters
    ----------
    model : SlotModel
        Says what it takes.
    data : mapping
        The task's data.
    interface : Interface
        Says which member it is.

    Returns
    -------
    str, list or None
    """
    kind = model.preprocessing.kind
    given = data.get("features") if kind == "features" else data.get(interface.value or _OBJECTS[kind][1])
    if kind == "features":
        return given if isinstance(given, list) and all(isinstance(it, int | float) for it in given) else None
    if not isinstance(given, str) or (kind == "images" and not given.startswith("data:image/")):
        return None
    return given


def task_of(item: Item, content: bytes, model: SlotModel) -> dict[str, Any]:
    """An item as a task's data."""
    data: dict[str, Any] = {ITEM: item.id, "p_value": item.p_value, "answer": item.answer}
    if item.media == FEATURES:
        numbers = np.frombuffer(content, "<f4").tolist()
        return {**data, "features": numbers, "text": json.dumps([round(it, 6) for it in numbers])}
    if item.media == TEXT:
        return {**data, "text": content.decode()}
    return {**data, _OBJECTS[model.preprocessing.kind][1]: f"data:{item.media};base64,{_base64(content)}"}


def prediction(answer: Mapping[str, Any], generation: int, interface: Interface) -> dict[str, Any]:
    """An answer as a prediction: its score is the p-value, so that the most novel come first in ascending order.

    Parameters
    ----------
    answer : mapping
        With ``label``, ``answer`` and ``p_value`` (None where the model has no calibration: 1 if matched, else 0).
    generation : int
        That gave it.
    interface : Interface
        Of the project.

    Returns
    -------
    dict
    """
    p_value = answer["p_value"]
    score = float(answer["answer"] == "matched") if p_value is None else float(p_value)
    choice = {
        "from_name": interface.from_name,
        "to_name": interface.to_name,
        "type": "choices",
        "value": {"choices": [answer["label"]]},
        "score": score,
    }
    return {"model_version": str(generation), "score": score, "result": [choice]}


def chosen(annotation: Mapping[str, Any]) -> str | None:
    """The label that an annotation gives; None where it gives none, or was cancelled.

    Raises
    ------
    DataError
        If it cannot be a label.
    """
    if annotation.get("was_cancelled"):
        return None
    results = annotation.get("result")
    for it in list(results) if isinstance(results, list) else []:
        value = it.get("value") if isinstance(it, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and choices and isinstance(choices[0], str):
            return check_label(choices[0])
    return None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
