"""One job at a time for each model: taken from the database, done in a process, told to whoever watches."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from protocols.service.answering.served_model import ServedModel
from protocols.service.callers import Caller
from protocols.service.inbox.database import Database
from protocols.service.jobs import records
from protocols.service.jobs.answering_again import AnsweringAgain
from protocols.service.jobs.archives.unpacking import ARCHIVE
from protocols.service.jobs.archives.uploads import Uploads
from protocols.service.jobs.child.tasks import Answered, Task
from protocols.service.jobs.children import Child, ChildEnded, Children
from protocols.service.jobs.events import ended_event, record_cancel, record_order
from protocols.service.jobs.feed import Feed
from protocols.service.jobs.gathering import gather_there
from protocols.service.jobs.memory import need
from protocols.service.jobs.outcomes import KEEP, as_it_is, landed
from protocols.service.jobs.records import Job, JobState
from protocols.service.statuses import problem_details, status_of
from slots.errors import StorageError

MOST_QUEUED = 16
"""Jobs of a model that may wait (count)."""

_AGAIN_SECONDS = 0.5  # between two tries to write what must be written
_TOLD_SECONDS = 1.0  # between two notes of the progress in the database


class Refused(Exception):  # noqa: N818  # a state of the service: the client may come again
    """The service cannot take the job now."""


class JobRunner:
    """The jobs of a service.

    Parameters
    ----------
    database : Database
        Where they are queued.
    models : mapping of str to ServedModel
        Each has a queue of its own.
    data : Path
        The service's data folder; what a job works on lies in ``jobs/NUMBER`` in it while it runs.
    content : callable
        The content of a digest, of items whose row does not hold it.
    """

    def __init__(
        self, database: Database, models: Mapping[str, ServedModel], data: Path, content: Callable[[str], bytes]
    ) -> None:
        self.feed = Feed()
        """What happens to jobs, for those who watch."""
        self._database, self._models, self._folder, self._content = database, models, data / "jobs", content
        self._children = Children()
        self._running: dict[int, Child] = {}
        self._cancelled: set[int] = set()
        self._wake = {name: asyncio.Event() for name in models}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.again = AnsweringAgain(database, models, content)
        """Answers the items of the inbox anew when another generation answers."""
        self.uploads = Uploads(data / "archives")
        """Archives that wait for their job."""

    async def start(self) -> None:
        """Settle the jobs that a stop or a crash left, and begin to work."""
        for job in await self._database.read(lambda it: records.in_state(it, "running")):
            await self._settle_left(job)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        waiting = await self._database.read(lambda it: records.in_state(it, "queued"))
        await asyncio.to_thread(self.uploads.sweep, {str(it.arguments.get("upload")) for it in waiting})
        await self.again.start()
        self._tasks = [asyncio.create_task(self._consume(served)) for served in self._models.values()]

    async def stop(self) -> None:
        """End what runs, marked as interrupted; what waits goes on waiting for the next start."""
        self._stopping = True
        for child in list(self._running.values()):
            await asyncio.to_thread(child.end)
        for wake in self._wake.values():
            wake.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=10)
            for task in late:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self.again.stop()
        await self._children.close()

    async def submit(
        self, served: ServedModel, kind: records.Kind, arguments: Mapping[str, Any], *, caller: Caller, size: int = 0
    ) -> Job:
        """Queue a job.

        Parameters
        ----------
        served : ServedModel
            The model.
        kind : str
            What to do.
        arguments : mapping
            What is asked, as JSON.
        caller : Caller
            Who asks.
        size : int, default 0
            Of the model that the job takes into memory beside this one (bytes).

        Returns
        -------
        Job

        Raises
        ------
        Refused
            If too many wait, or there is too little memory for another model.
        """
        short = await asyncio.to_thread(need, served.folder, size)
        if short:
            raise Refused(short)

        def work(connection: Connection) -> Job | None:
            if records.n_queued(connection, served.name) >= MOST_QUEUED:
                return None
            made = records.add(
                connection,
                model=served.name,
                kind=kind,
                arguments=arguments,
                key_id=caller.key_id,
                by=caller.name,
            )
            record_order(connection, caller, made)
            return made

        try:
            job = await self._database.write(work)
        finally:
            self._wake[served.name].set()  # where the database went away while it committed, there is a job perhaps
        if job is None:
            raise Refused(f"{MOST_QUEUED} jobs of {served.name!r} wait already. Come again when one is done.")
        self._tell(job)
        return job

    async def find(self, number: int) -> Job | None:
        """The job of a number."""
        return await self._database.read(lambda it: records.find(it, number))

    async def listed(self, *, model: str | None = None, before: int | None = None, limit: int = 50) -> list[Job]:
        """Jobs, the newest first."""
        return await self._database.read(partial(records.listed, model=model, before=before, limit=limit))

    async def cancel(self, job: Job, *, caller: Caller) -> Job:
        """End a job that is not over; one whose generation is there already stays done."""

        def work(connection: Connection) -> Job | None:
            record_cancel(connection, caller, job)
            return records.cancel_queued(connection, job.number)

        waiting = await self._database.write(work)
        if waiting is not None:
            self._drop_upload(waiting)
            self._tell(waiting)
            return waiting
        self._cancelled.add(job.number)
        child = self._running.get(job.number)
        if child is not None:
            await asyncio.to_thread(child.end)
        async for _ in self.feed.follow(job.number, 0, asyncio.Event()):
            pass  # to its end
        found = await self.find(job.number)
        assert found is not None
        return found

    async def _consume(self, served: ServedModel) -> None:
        """Do the jobs of one model, one after the other."""
        wake = self._wake[served.name]
        while not self._stopping:
            wake.clear()
            job = await self._kept(partial(records.take, model=served.name))
            if job is None:
                if not self._stopping:
                    await wake.wait()
                continue
            self._tell(job)
            try:
                await self._carry_out(served, job)
            except Exception as error:  # noqa: BLE001  # the queue must go on
                await self._finish(job, "failed", error=problem_details(*status_of(error)))
            finally:
                self._cancelled.discard(job.number)
                self._drop_upload(job)

    async def _carry_out(self, served: ServedModel, job: Job) -> None:
        """One job, from its material to its end."""
        folder = self._folder / str(job.number)
        child: Child | None = None
        try:
            await asyncio.to_thread(partial(folder.mkdir, parents=True, exist_ok=True))
            await self._gather(served, job, folder)
            child = await self._children.take()
            self._running[job.number] = child
            if self._stopping or job.number in self._cancelled:
                await asyncio.to_thread(child.end)
            task = Task(job.kind, served.folder, served.device, folder, job.arguments, job.token, job.by)
            await self._end(served, job, await asyncio.to_thread(child.run, task, self._teller(job)))
        except ChildEnded as ended:
            await self._end_without_answer(served, job, folder, ended)
        finally:
            self._running.pop(job.number, None)
            if child is not None:
                await self._children.give_back(child)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _drop_upload(self, job: Job) -> None:
        if job.kind == "import":
            self.uploads.drop(job.arguments["upload"])

    async def _gather(self, served: ServedModel, job: Job, folder: Path) -> None:
        if job.kind == "import":
            await asyncio.to_thread(self.uploads.hand_over, job.arguments["upload"], folder / ARCHIVE)
        if job.kind not in ("review", "update"):
            return
        model, labelled = served.current.model, job.kind == "update"
        await gather_there(self._database, job.model, model, folder, self._content, labelled=labelled)

    async def _end(self, served: ServedModel, job: Job, answered: Answered) -> None:
        if answered.result is None:
            await self._finish(job, "failed", error=answered.error)
            return
        await served.refresh()
        await self.again.settled(job.model)
        await self._finish(job, "done", result=answered.result)

    async def _end_without_answer(self, served: ServedModel, job: Job, folder: Path, ended: ChildEnded) -> None:
        """A process that was ended, by us or by somebody else, may have made its generation before."""
        result = await asyncio.to_thread(landed, served.folder, job, folder)
        if result is not None:
            await self._end(served, job, Answered(result, None))
        elif job.number in self._cancelled:
            await self._finish(job, "cancelled")
        elif self._stopping:
            await self._finish(job, "interrupted")
        else:
            await self._finish(job, "failed", error=problem_details(500, _why(ended.code)))

    async def _settle_left(self, job: Job) -> None:
        """A job that was running when the service ended: done if its generation is there, else interrupted."""
        served, material = self._models.get(job.model), self._folder / str(job.number)
        result = None if served is None else await asyncio.to_thread(landed, served.folder, job, material)
        await self._finish(job, "interrupted" if result is None else "done", result=result)

    async def _finish(
        self, job: Job, state: JobState, *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None
    ) -> None:
        keep = KEEP.get(job.kind, as_it_is)

        def work(connection: Connection) -> Job | None:
            found = records.find(connection, job.number)
            if found is None or found.over:  # over already: the database went away just after it committed that
                return found
            kept = None if result is None else keep(connection, job, result)
            ended = records.finish(connection, job.number, state, result=kept, error=error)
            if ended is not None:
                ended_event(connection, ended)
            return ended

        ended = await self._kept(work)
        if ended is not None:
            self._tell(ended)

    async def _kept(self, work: Callable[[Connection], Job | None]) -> Job | None:
        """Write something as soon as the database takes it; None where the service is stopped before."""
        while True:
            try:
                return await self._database.write(work)
            except StorageError:
                if self._stopping:
                    return None  # the next start settles it
                await asyncio.sleep(_AGAIN_SECONDS)

    def _tell(self, job: Job) -> None:
        self.feed.tell(job.number, records.document(job), over=job.over)

    def _teller(self, job: Job) -> Callable[[str, float], None]:
        """Takes the progress of a job in the thread that waits for it; notes it now and then, and tells it at once."""
        loop = asyncio.get_running_loop()
        noted = 0.0

        def told(step: str, share: float) -> None:
            nonlocal noted
            now = time.monotonic()
            if now - noted >= _TOLD_SECONDS:
                noted = now
                asyncio.run_coroutine_threadsafe(
                    self._database.write(lambda it: records.tell(it, job.number, step, share)), loop
                )
            document = records.document(job) | {"step": step, "share": share}
            loop.call_soon_threadsafe(partial(self.feed.tell, job.number, document, over=False))

        return told


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        return (
            f"The job's process was killed (signal {-code}), perhaps for want of memory. "
            "Nothing of it was kept; start it again."
        )
    return f"The job's process ended by itself (status {code}). Nothing of it was kept; start it again."
