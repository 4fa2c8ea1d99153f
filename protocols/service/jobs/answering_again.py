"""When another generation answers, the items of the inbox are answered anew, so that what waits is what is open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from protocols.service.answering.batching import Overloaded
from protocols.service.answering.loaded import Answers
from protocols.service.answering.served_model import ServedModel
from protocols.service.engines.unavailable import UnavailableError
from protocols.service.inbox.blobs import MissingContentError
from protocols.service.inbox.database import Database
from protocols.service.inbox.tables import item
from protocols.service.jobs.child.material import as_inputs
from protocols.service.jobs.lineage import give_back_unlearned, lineage
from slots.errors import SlotsError
from slots.head.prediction import Answer

_AT_ONCE = 64  # items answered together: one batch, between those of clients
_AGAIN_SECONDS = 0.5  # between two tries while the database is away
_KINDS = {Answer.MATCHED: "matched", Answer.AMBIGUOUS: "ambiguous", Answer.UNMATCHED: "unmatched"}
_WAITING = ("open", "labelled")


@dataclass(frozen=True)
class _Stored:
    number: int
    content: bytes


class AnsweringAgain:
    """Keeps the answers of waiting items those of the generation that answers now.

    Parameters
    ----------
    database : Database
        The inbox.
    models : mapping of str to ServedModel
        The models.
    content : callable
        The content of a digest, of items whose row does not hold it.
    false_alarm_rate : float, default 0.05
        As the models are asked by default.
    """

    def __init__(
        self,
        database: Database,
        models: Mapping[str, ServedModel],
        content: Callable[[str], bytes],
        *,
        false_alarm_rate: float = 0.05,
    ) -> None:
        self._database, self._models, self._content, self._rate = database, models, content, false_alarm_rate
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Look once at all models: generations may have come and gone while nobody served them."""
        for name in self._models:
            self.begin(name)

    async def stop(self) -> None:
        """Leave the rest for the next start."""
        for task in self._tasks.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    def begin(self, name: str) -> None:
        """Start on a model whose generation has changed; what is under way for it begins anew."""
        if (under_way := self._tasks.get(name)) is not None:
            under_way.cancel()
        self._tasks[name] = asyncio.create_task(self._all(self._models[name]))

    async def settled(self, name: str) -> None:
        """Wait until the items of a model are those of its generation; what goes wrong is left for the next time."""
        task = self._tasks.get(name)
        if task is not None:
            await asyncio.wait([task])

    async def _all(self, served: ServedModel) -> None:
        while True:
            try:
                return await self._pass(served)
            except UnavailableError:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _pass(self, served: ServedModel) -> None:
        inside = lineage(served.current.model.history)
        await self._database.write(partial(give_back_unlearned, model=served.name, inside=inside))
        after, generation = 0, served.current.generation
        while True:
            last, rows = await self._database.read(partial(self._stale, served.name, generation, after))
            if last is None:
                return
            after, changes = last, await self._answered(served, rows)
            if changes:
                await self._database.write(partial(_store, changes=changes))

    def _stale(
        self, name: str, generation: int, after: int, connection: Connection
    ) -> tuple[int | None, list[_Stored]]:
        """The next items that another generation answered, and the last number; None where there are no more.

        An item whose file is gone was deleted since its row was read, or is lost: it keeps its answer.
        """
        chosen = (
            select(item.c.number, item.c.content, item.c.digest)
            .where(item.c.model == name, item.c.state.in_(_WAITING), item.c.generation != generation)
            .where(item.c.number > after)
            .order_by(item.c.number)
            .limit(_AT_ONCE)
        )
        last, found = None, []
        for last, content, digest in connection.execute(chosen):
            with contextlib.suppress(MissingContentError):
                found.append(_Stored(last, self._content(digest) if content is None else content))
        return last, found

    async def _answered(self, served: ServedModel, rows: list[_Stored]) -> list[dict[str, Any]]:
        """New values of the items; none of those that the model does not take."""
        model = served.current.model
        if not rows:
            return []
        try:
            x = await asyncio.to_thread(as_inputs, model, [it.content for it in rows])
            while True:
                try:
                    found = await served.answer(x, false_alarm_rate=self._rate, again=True)
                    return [_values(found, row, it.number) for row, it in enumerate(rows)]
                except Overloaded:
                    await asyncio.sleep(0.1)  # clients come first
        except SlotsError:
            if len(rows) == 1:
                return []
            return [change for it in rows for change in await self._answered(served, [it])]


def _values(found: Answers, row: int, number: int) -> dict[str, Any]:
    """Columns of an item, from the answer in a row."""
    told, novelty = found.prediction, found.novelty
    return {
        "of": number,
        "generation": found.loaded.generation,
        "answer": _KINDS[Answer(int(told.answers[row]))],
        "label_id": int(told.labels[row]),
        "label": found.loaded.names[int(told.labels[row])],
        "slot": int(told.slots[row]),
        "margin": float(told.margins[row]),
        "p_value": None if novelty is None else float(novelty.p_values[row]),
        "score": None if novelty is None else float(novelty.scores[row]),
    }


def _store(connection: Connection, changes: list[dict[str, Any]]) -> None:
    columns: dict[str, Any] = {name: bindparam(name) for name in changes[0] if name != "of"}
    connection.execute(update(item).where(item.c.number == bindparam("of")).values(columns), changes)
