"""Routes through a model's generations: their list, what changed between two, back to an older one, and pruning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

import backbones
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import AdminModel, Caller, ReadModel, TheCaller, TheService
from protocols.service.inbox.events import record
from protocols.service.service import Service
from protocols.service.statuses import status_of
from slots.errors import SlotsError, UsageError
from slots.model.comparison import diff
from slots.model.slot_model import SlotModel
from slots.storage.generations import log, undo
from slots.storage.pruning import prune

router = APIRouter(prefix="/api/v1/models/{model}", tags=["generations"])

_WAIT_SECONDS = 10.0  # for another process that is writing to the model
_MOST = 1 << 53


class UndoOrder(BaseModel):
    """Which generation to go back to.

    Parameters
    ----------
    to : int, optional
        Its number. Default: the one before the current content.
    if_needed : bool, default False
        With ``to``: change nothing where its content is current already, so that the request can be repeated.
    """

    model_config = ConfigDict(extra="forbid")

    to: int | None = Field(None, ge=0, lt=_MOST)
    if_needed: bool = False


class PruneOrder(BaseModel):
    """Which generations the folder goes on keeping.

    Parameters
    ----------
    keep : int, optional
        The newest so many.
    keep_days : float, optional
        Those of the last so many days.
    dry_run : bool, default False
        Only find out.
    """

    model_config = ConfigDict(extra="forbid")

    keep: int | None = Field(None, ge=1, lt=_MOST)
    keep_days: float | None = Field(None, ge=0, le=1e6)
    dry_run: bool = False


@router.get("/generations")
async def generations(model: ReadModel) -> list[dict[str, Any]]:
    """All generations, the oldest first: what made each, its slots, whether it is kept and current."""
    return [asdict(it) for it in await asyncio.to_thread(log, model.folder)]


@router.get("/diff")
async def difference(
    model: ReadModel,
    older: Annotated[int | None, Query(alias="from", ge=0, lt=_MOST)] = None,
    newer: Annotated[int | None, Query(alias="to", ge=0, lt=_MOST)] = None,
) -> dict[str, Any]:
    """What changed between two generations, and whether any matched answer can have changed.

    Without numbers the current generation is compared with the one before.
    """
    return await asyncio.to_thread(_difference, model, older, newer)


@router.post("/undo")
async def go_back(
    service: TheService, model: AdminModel, caller: TheCaller, order: UndoOrder | None = None
) -> dict[str, Any]:
    """Go back to an older generation, under a new number; what its updates had learned waits to be learned again."""
    wanted = order or UndoOrder(to=None)
    back = partial(undo, model.folder, wanted.to, if_needed=wanted.if_needed, wait=_WAIT_SECONDS)
    async with _written(service, caller, model, "undo", wanted) as outcome:
        before = model.current.generation
        entry = await asyncio.to_thread(back)
        outcome |= {"before": before, "after": entry.number}
    await model.refresh()
    await service.jobs.again.settled(model.name)
    return asdict(entry)


@router.post("/prune")
async def free(service: TheService, model: AdminModel, caller: TheCaller, order: PruneOrder) -> dict[str, Any]:
    """Free the disk of old generations; never the current one, the fit or a pinned one."""
    drop = partial(prune, keep=order.keep, keep_days=order.keep_days, dry_run=order.dry_run, wait=_WAIT_SECONDS)
    if order.dry_run:
        return asdict(await asyncio.to_thread(drop, model.folder))
    async with _written(service, caller, model, "prune", order) as outcome:
        dropped = await asyncio.to_thread(drop, model.folder)
        outcome["detail"] = {"removed": len(dropped.removed), "kept": list(dropped.kept[-100:])}
    return asdict(dropped)


@asynccontextmanager
async def _written(
    service: Service, caller: Caller, model: ServedModel, noun: str, order: BaseModel
) -> AsyncIterator[dict[str, Any]]:
    """Write down who changes a model folder: what was asked before anything is done, and then what became of it.

    A folder is no part of the database's transaction: whatever ends the process in between, the order is in the log.
    """

    async def note(verb: str, **more: Any) -> None:
        await service.database.write(lambda it: record(it, caller, f"{noun}.{verb}", model=model.name, **more))

    await note("begin", detail=order.model_dump())
    outcome: dict[str, Any] = {}
    try:
        yield outcome
    except SlotsError as error:
        await note("failed", detail={"status": status_of(error)[0]})
        raise
    await note("done", **outcome)


def _difference(served: ServedModel, older: int | None, newer: int | None) -> dict[str, Any]:
    kept = [entry.number for entry in log(served.folder) if entry.kept]
    second = kept[-1] if newer is None else newer
    before = [number for number in kept if number < second]
    if older is None and not before:
        raise UsageError(f"`from` must be a generation before {second}, and none is kept. There is nothing to compare.")
    first = before[-1] if older is None else older
    _check_kept(kept, first, second)
    old, new = (SlotModel.load(served.folder, generation=it, build=backbones.build) for it in (first, second))
    return asdict(diff(old, new))


def _check_kept(kept: list[int], *wanted: int) -> None:
    for number in wanted:
        if number not in kept:
            listed = ", ".join(map(str, kept))
            raise UsageError(f"`from` and `to` must be generations that are kept, got {number}. Kept are {listed}.")
