"""One generation of a model in memory, warmed and ready to answer."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocols.recipes.building import load_model
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.novelty.assessment import Novelty
from slots.shapes import RawInputs

_TRIES = 4
_HOPELESS_SECONDS = 0.05  # another try would not make it quick


@dataclass(frozen=True)
class Answers:
    """What one generation says of some inputs.

    Parameters
    ----------
    loaded : Loaded
        The generation that answered, for names and remembered examples.
    prediction : Prediction
        One answer a row.
    novelty : Novelty or None
        How foreign each row is; None where the model has no calibration.
    scores_by_fit : float64 array of shape (example,), optional
        How foreign each row is to the slots of the fit alone, see `slots.model.examination.Examination`; None with
        ``novelty``.
    again : bool, default False
        Whether the inputs were answered before, or are asked about for their own sake: they are no part of the stream.
    """

    loaded: Loaded
    prediction: Prediction
    novelty: Novelty | None
    scores_by_fit: npt.NDArray[np.float64] | None = None
    again: bool = False

    def rows(self, start: int, stop: int) -> Answers:
        """The answers of some consecutive rows."""
        cut = slice(start, stop)
        prediction = Prediction(*(part[cut] for part in _parts(self.prediction)))
        novelty = None if self.novelty is None else Novelty(*(part[cut] for part in _parts(self.novelty)))
        by_fit = None if self.scores_by_fit is None else self.scores_by_fit[cut]
        return Answers(self.loaded, prediction, novelty, by_fit, self.again)


@dataclass(frozen=True)
class Loaded:
    """One generation of a model; never changed after it was made, so that any thread may read it.

    Parameters
    ----------
    model : SlotModel
        The model.
    generation : int
        Its generation.
    names : tuple of str
        Name of each label id.
    """

    model: SlotModel
    generation: int
    names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, device: str) -> Loaded:
        """Load the current generation of a folder and answer once, so that the first client does not wait for it.

        Parameters
        ----------
        folder : Path
            A model folder.
        device : str
            Where the model shall lie.

        Returns
        -------
        Loaded

        Raises
        ------
        ModelError
            If the folder is no readable model.
        """
        model = load_model(folder, device=device)
        model.eval()
        names = tuple(model.class_name(label) for label in range(model.n_labels))
        made = cls(model, model.generation, names)
        made.answer(made.blank(1), false_alarm_rate=0.05)
        return made

    def answer(self, x: RawInputs, *, false_alarm_rate: float) -> Answers:
        """Answer inputs, and say how foreign they are where the model can."""
        if self.model.novelty is None or len(self.model.novelty.calibration) * false_alarm_rate < 1:
            return Answers(self, self.model.predict(x), None)
        found = self.model.examine(x, false_alarm_rate=false_alarm_rate)
        return Answers(self, found.prediction, found.novelty, found.scores_by_fit)

    @cached_property
    def slot_names(self) -> tuple[str, ...]:
        """Name of each slot's label."""
        return tuple(self.names[label] for label in self.model.head.labels.tolist())

    def batch_seconds(self, rows: int) -> float:
        """Processor time of a batch: the least of a few tries, since whatever else runs only adds to it.

        Parameters
        ----------
        rows : int
            Of the batch (count).

        Returns
        -------
        float
            Seconds; infinity where the model does not lie on the CPU, so that the processor says nothing of it.
        """
        if self.model.head.centres.device.type != "cpu":
            return math.inf
        x, least = self.blank(rows), math.inf
        for _ in range(_TRIES):
            began = time.thread_time()
            self.answer(x, false_alarm_rate=0.05)
            least = min(least, time.thread_time() - began)
            if least > _HOPELESS_SECONDS:
                break
        return least

    def blank(self, n: int) -> RawInputs:
        """Inputs without content, as many as asked for, to warm up with."""
        preprocessing = self.model.preprocessing
        if preprocessing.kind == "text":
            return np.full(n, "a", dtype=object)
        if preprocessing.kind == "images":
            channels, height, width = preprocessing.shape
            return np.zeros((n, height, width, channels), np.uint8)
        return np.ones((n, *preprocessing.shape), np.float32)


def _parts(record: Prediction | Novelty) -> list[np.ndarray]:
    return list(vars(record).values())
