"""A model that answers as MLflow asks: the inputs as its tools hand them over, the answers as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protocols.recipes.building import load_model
from slots.errors import DataError
from slots.head.prediction import Answer
from slots.shapes import RawInputs

INPUT = "input"
"""What the one input is called."""

RATE = 0.05
"""Share of familiar inputs that may be called novel, where nobody says otherwise."""


class Answering:
    """A model folder as a function from inputs to a table; what an exported ``model.py`` calls.

    Parameters
    ----------
    folder : path
        A model folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.model = load_model(folder)
        self.calibrated = self.model.novelty is not None
        """Whether answers say how foreign inputs are."""

    def __call__(self, given: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Answer inputs.

        Parameters
        ----------
        given : array, mapping, sequence or data frame
            Rows of float32; uint8 images of shape (example, height, width, channel); or texts. A mapping has them under
            ``input``; a data frame has one column of texts, or one a number.
        params : mapping, optional
            ``false_alarm_rate``: share of familiar inputs that may be called novel, in (0, 1).

        Returns
        -------
        DataFrame
            A row an input: ``label``, ``label_id``, ``answer``, ``slot``, ``margin`` (radians; minus pi of a slot that
            matches nothing at all), and of a calibrated model ``p_value`` and ``novel``.

        Raises
        ------
        DataError
            If the inputs are not what the model takes.
        """
        import pandas

        x = self._inputs(given)
        rate = float((params or {}).get("false_alarm_rate", RATE))
        novelty = None
        if self.calibrated:
            found = self.model.examine(x, false_alarm_rate=rate)
            told, novelty = found.prediction, found.novelty
        else:
            told = self.model.predict(x)
        columns = {
            "label": [self.model.class_name(it) for it in told.labels.tolist()],
            "label_id": told.labels,
            "answer": [Answer(it).name.lower() for it in told.answers.tolist()],
            "slot": told.slots,
            "margin": np.maximum(told.margins, -math.pi),
        }
        if novelty is not None:
            columns |= {"p_value": novelty.p_values, "novel": novelty.novel}
        return pandas.DataFrame(columns)

    def _inputs(self, given: Any) -> RawInputs:
        if isinstance(given, Mapping):
            if set(given) != {INPUT}:
                raise DataError(f"The inputs must be under {INPUT!r} and nothing else, got {sorted(given)[:5]}.")
            given = given[INPUT]
        kind = self.model.preprocessing.kind
        if hasattr(given, "to_numpy"):  # a data frame
            given = given.to_numpy()
        if kind == "text":
            return _texts(given)
        try:
            return np.asarray(given, dtype=np.uint8 if kind == "images" else np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"The inputs must be {kind} in equally long rows, got {type(given).__name__}.") from error


def _texts(given: Sequence[Any]) -> RawInputs:
    found = np.asarray(given, dtype=object)
    rows = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if rows.ndim != 1 or not all(isinstance(it, str) for it in rows):
        raise DataError("The inputs must be texts, one a row. Give a list, or a data frame with one column.")
    return rows
