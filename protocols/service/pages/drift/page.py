"""The page of drift: has the stream changed, since when, and in what."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response

from protocols.service.answering.recent import Tally
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import AdminCopy, ReadModel, TheCaller, TheService
from protocols.service.api.drifting import Acknowledgement, LabelCounts, acknowledge, by_label, fitting, told
from protocols.service.drift.comparing import calibration_of
from protocols.service.drift.steps import steps, whole
from protocols.service.pages.drift import charts
from protocols.service.pages.rendering import Page, go, page
from protocols.service.service import Service

router = APIRouter(route_class=Page, include_in_schema=False, prefix="/models/{model}/drift")

SPANS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
"""Times that the page can show (seconds)."""

_MOST_LABELS = 60

Span = Literal["hour", "day", "week", "month"]


@dataclass(frozen=True)
class LabelRow:
    """A label in the table.

    Parameters
    ----------
    label : str
        Its name.
    n : int
        Inputs that got it (count).
    share : float
        Of all inputs, in [0, 1].
    unmatched : float
        Share of them that nothing matched, in [0, 1].
    """

    label: str
    n: int
    share: float
    unmatched: float


@router.get("")
async def show(
    request: Request, service: TheService, model: ReadModel, span: Annotated[Span, Query()] = "day"
) -> Response:
    """The page."""
    return page(request, "drift.html", at="drift", model=model, **await _figures(service, model, span))


@router.post("/acknowledge")
async def looked_at(
    request: Request,
    service: TheService,
    model: AdminCopy,
    caller: TheCaller,
    compare_with: Annotated[Literal["stream", "calibration"], Form()] = "stream",
) -> Response:
    """Begin a new era after an alarm."""
    begun = await acknowledge(service, model, caller, Acknowledgement(compare_with=compare_with))
    others = f"{begun.calibration} calibration examples" if begun.calibration else "the stream itself"
    return go(request, f"/models/{model.name}/drift", f"Acknowledged. From now on inputs are compared with {others}.")


async def _figures(service: Service, model: ServedModel, span: Span) -> dict[str, Any]:
    """What the page shows."""
    end = int(time.time()) // 60 * 60 + 60
    first = end - SPANS[span]
    step = fitting(SPANS[span])
    standing, minutes = await told(service, model, first, end)
    seen, counted = steps(minutes, step), whole(minutes)
    return {
        "now": standing,
        "capital": 10 ** min(standing.log10, 300.0),
        "power": round(standing.log10),
        "chance": 1 / standing.threshold,
        "span": span,
        "spans": list(SPANS),
        "first": first,
        "end": end,
        "n": counted.n,
        "course": charts.capital(seen, first, end, step, threshold=math.log10(standing.threshold)),
        "columns": charts.columns(seen, first, end, step),
        "tally": Tally(*reversed(counted.answers)),
        "familiar": model.current.model.familiar_shares,
        "histogram": charts.histogram(counted.histogram),
        "labels": label_rows(by_label(model, counted), counted.n)[:_MOST_LABELS],
        "n_labels": len(counted.labels),
        "calibrated": len(calibration_of(model.current)),
    }


def label_rows(counts: list[LabelCounts], total: int) -> list[LabelRow]:
    """The table of labels, those with most inputs first."""
    rows = []
    for it in counts:
        n = it.matched + it.ambiguous + it.unmatched
        rows.append(LabelRow(it.label, n, n / (total or 1), it.unmatched / (n or 1)))
    return sorted(rows, key=lambda row: (-row.n, row.label))
