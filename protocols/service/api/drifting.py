"""Routes of drift: what a model's monitor says, step by step, and that somebody has looked at its alarm."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import AdminCopy, ReadModel, TheCaller, TheService
from protocols.service.drift import rows
from protocols.service.drift.minutes import Minute
from protocols.service.drift.steps import steps, whole
from protocols.service.drift.watch import Standing
from protocols.service.inbox.refusals import ConflictError
from protocols.service.service import Service
from slots.errors import UsageError
from slots.head.prediction import Answer

router = APIRouter(prefix="/api/v1/models/{model}", tags=["drift"])

MOST_STEPS = 2000
"""Steps of one answer (count)."""

MOST_SECONDS = 31 * 86_400
"""The longest time that is told at once (seconds)."""

_SHOWN_STEPS = 120
_MOST_TIME = 1 << 40


class DriftAlarm(BaseModel):
    """The first time in an era that the capital reached the threshold.

    Parameters
    ----------
    item : int
        Number of the input in its era, from 0.
    time : float
        Seconds since 1970.
    log10 : float
        Decimal logarithm of the capital after it.
    """

    item: int
    time: float
    log10: float


class LabelCounts(BaseModel):
    """Inputs by their answer, of those that got one label.

    Parameters
    ----------
    label_id : int
        The label.
    label : str
        Its name in the generation that answers now.
    matched, ambiguous, unmatched : int
        Inputs (count); of an unmatched one the label is the best guess.
    """

    label_id: int
    label: str
    matched: int
    ambiguous: int
    unmatched: int


class DriftStep(BaseModel):
    """What came in during one step.

    Parameters
    ----------
    start : int
        Its first second, since 1970.
    era, generation : int
        Run of the martingale, and the generation that answered last in it.
    matched, ambiguous, unmatched : int
        Inputs (count).
    histogram : list of int
        P-values (online conformal ranks) in 20 bins of equal width, the most novel first; flat where nothing changed.
    log10, log10_max : float
        Decimal logarithm of the capital at the end, and its largest value.
    """

    start: int
    era: int
    generation: int
    matched: int
    ambiguous: int
    unmatched: int
    histogram: list[int]
    log10: float
    log10_max: float


class Drift(BaseModel):
    """Whether the stream is what it was.

    Parameters
    ----------
    model : str
        The model.
    watched : bool
        Whether the generation that answers says how novel inputs are, and has a slot of its fit; without, nothing is
        watched.
    generation, era : int
        Generation that answers; and which run of the martingale. An era goes on through updates and undo.
    items : int
        Inputs of the era (count).
    compared_with : {"calibration", "stream"}
        What the era's inputs are compared with.
    calibration : int
        Calibration scores that the era began with (count).
    threshold : float
        Capital at which the alarm is raised; a familiar stream ever reaches it with probability 1 / threshold at most.
    log10 : float
        Decimal logarithm of the capital.
    alarm : DriftAlarm or None
        The era's alarm.
    step : int
        Length of a step (seconds).
    steps : list of DriftStep
        Steps with inputs, by era and time.
    labels : list of LabelCounts
        Of all steps together, by label.
    """

    model: str
    watched: bool
    generation: int
    era: int
    items: int
    compared_with: Literal["calibration", "stream"]
    calibration: int
    threshold: float
    log10: float
    alarm: DriftAlarm | None
    step: int
    steps: list[DriftStep]
    labels: list[LabelCounts]


class Acknowledgement(BaseModel):
    """With what to compare from now on.

    Parameters
    ----------
    compare_with : {"stream", "calibration"}, default "stream"
        The stream itself, as after a class that was learned, or the fit's calibration scores again.
    """

    model_config = ConfigDict(extra="forbid")

    compare_with: Literal["stream", "calibration"] = "stream"


@router.get("/drift")
async def drift(
    service: TheService,
    model: ReadModel,
    first: Annotated[
        int | None, Query(alias="from", ge=0, lt=_MOST_TIME, description="Seconds since 1970; default: a day ago.")
    ] = None,
    end: Annotated[int | None, Query(alias="to", ge=0, lt=_MOST_TIME, description="Default: now.")] = None,
    step: Annotated[
        int | None,
        Query(ge=60, le=MOST_SECONDS, multiple_of=60, description="Seconds; default: what makes 120 steps or fewer."),
    ] = None,
) -> Drift:
    """What the monitor says of all that was answered until now, and what came in step by step."""
    until = int(time.time()) + 60 if end is None else end
    since = max(until - 86_400, 0) if first is None else first
    if not 0 < until - since <= MOST_SECONDS:
        raise UsageError(f"`to` must lie after `from`, and by {MOST_SECONDS} seconds at most. Ask for a part of it.")
    length = step or fitting(until - since)
    if (until - since) / length > MOST_STEPS:
        raise UsageError(f"`step` must leave {MOST_STEPS} steps at most, got {length}. Take longer steps.")
    standing, seen = await told(service, model, since, until)
    return document(model, standing, seen, length)


@router.post("/drift/acknowledge")
async def acknowledge(
    service: TheService, model: AdminCopy, caller: TheCaller, order: Acknowledgement | None = None
) -> Drift:
    """Begin a new era after an alarm that the caller has looked at; 409 where there is none."""
    calibrated = (order or Acknowledgement()).compare_with == "calibration"
    if (await service.drift.standing(model.name)).alarm is None:
        raise ConflictError(
            "There is no alarm to acknowledge, and beginning anew without one weakens the promise. Nothing to do."
        )
    return document(model, await service.drift.acknowledge(model.name, caller, calibrated=calibrated), [], 60)


async def told(service: Service, model: ServedModel, first: int, end: int) -> tuple[Standing, list[Minute]]:
    """What the monitor says now, and the minutes of a time, the one that goes on included.

    Parameters
    ----------
    service : Service
        The service.
    model : ServedModel
        The model.
    first, end : int
        Minutes that begin at ``first`` or later and before ``end`` (seconds since 1970).

    Returns
    -------
    standing, minutes
    """
    standing = await service.drift.standing(model.name)

    def read(connection: Connection) -> list[Minute]:
        return rows.minutes(connection, model.name, first=first, end=end)

    stored = await service.database.read(read)
    further = [it for it in standing.minutes if first <= it.start < end]
    known = {(it.era, it.start): it for it in [*stored, *further]}
    return standing, [known[key] for key in sorted(known)]


def fitting(seconds: int) -> int:
    """The length of a step that leaves at most 120 of them (seconds, a multiple of 60).

    Examples
    --------
    >>> fitting(3600), fitting(86_400)
    (60, 720)
    """
    return max(60, -(-seconds // _SHOWN_STEPS // 60) * 60)


def document(model: ServedModel, standing: Standing, seen: list[Minute], length: int) -> Drift:
    """What the monitor says, as clients read it."""
    alarm = standing.alarm
    return Drift(
        model=model.name,
        watched=standing.watched,
        generation=standing.generation,
        era=standing.era,
        items=standing.items,
        compared_with="calibration" if standing.compared else "stream",
        calibration=standing.compared,
        threshold=standing.threshold,
        log10=standing.log10,
        alarm=None if alarm is None else DriftAlarm(item=alarm.item, time=alarm.time, log10=alarm.log10),
        step=length,
        steps=[_step(it) for it in steps(seen, length)],
        labels=by_label(model, whole(seen)),
    )


def by_label(model: ServedModel, counted: Minute) -> list[LabelCounts]:
    """Counts of each label, by its id."""
    names = model.current.names
    return [
        LabelCounts(
            label_id=label,
            label=names[label] if label < len(names) else str(label),
            matched=kinds[Answer.MATCHED],
            ambiguous=kinds[Answer.AMBIGUOUS],
            unmatched=kinds[Answer.UNMATCHED],
        )
        for label, kinds in sorted(counted.labels.items())
    ]


def _step(minute: Minute) -> DriftStep:
    answers = minute.answers
    return DriftStep(
        start=minute.start,
        era=minute.era,
        generation=minute.generation,
        matched=answers[Answer.MATCHED],
        ambiguous=answers[Answer.AMBIGUOUS],
        unmatched=answers[Answer.UNMATCHED],
        histogram=minute.histogram,
        log10=minute.log10,
        log10_max=minute.log10_max,
    )
