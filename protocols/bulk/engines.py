"""Who works on a run: this process, several processes of this machine, or actors of Ray."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from protocols.bulk.outcome import Outcome, outcome
from protocols.bulk.proposing import propose_over_shards
from protocols.bulk.run import ASIDE, STEPS, Options, Run, begin
from protocols.bulk.shards import find_shards
from protocols.bulk.work import forgive, never, pending, work
from protocols.data.parquet import arrow
from protocols.recipes.building import load_model
from slots.errors import MissingExtraError, SlotsError, StorageError
from slots.novelty.conformal import check_rate
from slots.novelty.slot_novelty import calibrated
from slots.progress import Progress, silent
from slots.update.queries import check_asked

Engine = Literal["processes", "ray"]

_LOOK = 0.5  # seconds between looks at what is done


def answer_shards(
    model: Path,
    pattern: str,
    out: Path,
    options: Options,
    *,
    workers: int = 1,
    engine: Engine = "processes",
    device: str = "auto",
    stop: Callable[[], bool] = never,
    progress: Progress = silent,
) -> Outcome:
    """Answer all rows of all files that a pattern names, or go on with it.

    Parameters
    ----------
    model : Path
        A model folder; its current state answers all of the run.
    pattern : str
        As `find_shards` takes it.
    out : Path
        Where the answers go: a new folder, or that of the same run.
    options : Options
        What is asked.
    workers : int, default 1
        Processes or actors (count, >= 1); one process is this one.
    engine : {"processes", "ray"}
        Who works.
    device : str, default "auto"
        Where they answer.
    stop : callable, default never
        Whether to end, after the shards at hand.
    progress : callable, default nobody
        ``progress("shards", share)``; the steps of a proposal by their names.

    Returns
    -------
    Outcome
        What is there now. Shards that could not be answered are named in it, not raised.

    Raises
    ------
    DataError
        If there are no such files.
    UsageError
        If the folder holds another run, or the model cannot judge novelty where that is asked for, or not at that rate.
    ModelError
        If there is no such model.
    MissingExtraError
        If pyarrow, or Ray where it is asked for, is missing.
    """
    arrow()  # said before anything is written
    shards = find_shards(pattern, rows=options.rows)
    if options.question == "ood":
        check_rate(options.false_alarm_rate, len(calibrated(load_model(model, device="cpu").novelty).calibration))
    elif options.question == "propose":
        check_asked(options.budget, options.stop_below, options.radius, options.purity)

    def work_on(folder: Path, its: Run) -> None:
        forgive(folder, its)
        if engine == "ray":
            run_ray(folder, its, workers, device=device, stop=stop, progress=progress)
        elif workers > 1:
            run_processes(folder, its, workers, device=device, stop=stop, progress=progress)
        else:
            run_here(folder, its, device=device, stop=stop, progress=progress)

    with _cluster() if engine == "ray" else contextlib.nullcontext():  # once for all passes
        run = begin(out, model, options, shards)
        if options.question == "propose":
            return propose_over_shards(out, run, work_on)
        work_on(out, run)
        return outcome(out, run)


def run_here(out: Path, run: Run, *, device: str, stop: Callable[[], bool], progress: Progress) -> None:
    """Work in this process."""
    n, looked = len(run.shards), -_LOOK

    def told() -> bool:
        nonlocal looked
        if time.monotonic() > looked + _LOOK:  # to look at all files after each shard would take longer than the work
            progress(_title(run), 1 - len(pending(out, run)) / max(1, n))
            looked = time.monotonic()
        return stop()

    work(out, device=device, stop=told)


def _title(run: Run) -> str:
    return run.options.question if run.options.question in STEPS else "shards"


def run_processes(
    out: Path, run: Run, workers: int, *, device: str, stop: Callable[[], bool], progress: Progress
) -> None:
    """Work in several processes; one that is killed is replaced.

    Parameters
    ----------
    out : Path
        Folder of the run.
    run : Run
        The same.
    workers : int
        Processes (count, >= 1); the threads of this machine are shared out among them.
    device : str
        Where they answer.
    stop : callable
        Whether to end: workers end after the shard they have.
    progress : callable
        ``progress("shards", share)``.

    Raises
    ------
    SlotsError
        If a worker ended by itself with work left; it has said why.
    """
    context = _context()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def started() -> BaseProcess:
        process = context.Process(target=_worker, args=(str(out), device, max(1, cores // workers)), daemon=True)
        process.start()
        return process

    processes = [started() for _ in range(min(workers, max(1, len(pending(out, run)))))]
    try:
        while any(it.is_alive() for it in processes):
            time.sleep(_LOOK)
            left = pending(out, run)
            progress(_title(run), 1 - len(left) / max(1, len(run.shards)))
            if stop():
                break
            for place, process in enumerate(processes):
                if process.exitcode is not None and process.exitcode > 0:
                    raise StorageError("A worker ended with an error, see above. What is done is kept: run it again.")
                if left and process.exitcode is not None and process.exitcode < 0:
                    processes[place] = started()  # a signal ended it
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _context() -> SpawnContext | ForkServerContext:
    """Where the system can, workers are forks of a server that has imported everything: one more starts at once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["protocols.bulk.preloaded"])
    return context


def _worker(out: str, device: str, threads: int) -> None:
    # Asked by signals: what processes share, such as an event, stays locked for ever where one is killed that has it.
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and says when to end
    parent = os.getppid()
    try:
        work(Path(out), device=device, threads=threads, stop=lambda: bool(ended) or os.getppid() != parent)
    except SlotsError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)


def run_ray(out: Path, run: Run, workers: int, *, device: str, stop: Callable[[], bool], progress: Progress) -> None:
    """Work in actors of Ray, on the cluster that ``RAY_ADDRESS`` names, else on this machine.

    All its machines must see ``out`` and the files of the shards under the same paths, on a file system with locks.

    Parameters
    ----------
    out, run, workers, device, stop, progress
        As for `run_processes`; actors.

    Raises
    ------
    MissingExtraError
        If Ray is missing.
    """
    with _cluster() as ray:
        task = ray.remote(max_retries=-1, num_cpus=1)(_ray_worker)
        flag = out.absolute() / ASIDE / "stop"
        flag.unlink(missing_ok=True)
        waiting = [task.remote(str(out.absolute()), device) for _ in range(workers)]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=1.0)
            ray.get(done)
            progress(_title(run), 1 - len(pending(out, run)) / max(1, len(run.shards)))
            if stop():
                flag.touch()


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """The module Ray, begun here where it was not yet, and ended again."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "`--engine ray` needs Ray, which is missing. Install it: pip install 'neural-slots[ray]'."
        ) from error
    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        yield ray
    finally:
        if begun:
            ray.shutdown()


def _ray_worker(out: str, device: str) -> None:
    work(Path(out), device=device, threads=1, stop=(Path(out) / ASIDE / "stop").exists)
