"""One worker: takes a shard that nobody has, answers it, writes it whole, and goes on until none is left."""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from protocols.bulk.answering import answer_shard
from protocols.bulk.run import ASIDE, STEPS, Run, answers_of, model_folder, read_run, root_of
from protocols.bulk.shards import Shard
from protocols.bulk.steps import take_step
from protocols.recipes.building import load_model
from slots.errors import ModelError, SlotsError
from slots.model.slot_model import SlotModel
from slots.storage.atomic import make_folders, storage, write_file, write_text

TRIES = 10
"""Times that a shard is begun without ever ending, before it is left alone."""

_WAIT = 0.2  # seconds between looks at shards that others have


def never() -> bool:
    """Nobody asks for an end."""
    return False


def work(out: Path, *, device: str = "auto", threads: int | None = None, stop: Callable[[], bool] = never) -> None:
    """Answer shards of a run until none is left, beside any number of processes that do the same.

    Parameters
    ----------
    out : Path
        Folder of a run, as `begin` made it; the file system must have locks.
    device : str, default "auto"
        Where to answer.
    threads : int, optional
        Threads of torch. Default: as they are.
    stop : callable, default never
        Asked before each shard.

    Raises
    ------
    StorageError
        If the disk refuses. What a shard's rows are refused for is written down for it (`failures`), not raised.

    Notes
    -----
    A shard belongs to whoever holds the lock of its name, which the operating system takes from a process that
    ends in any way. Answers are a function of model, options and rows, are forced to disk and then get their name: a
    shard has all its answers or none, and whoever dies costs at most the one it had.
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    run = read_run(out)
    model = load_model(model_folder(root_of(out, run)), device=device, half=run.options.half)
    make_folders(out / ASIDE / "leases")
    while todo := pending(out, run):
        answered = 0
        for shard in todo:
            if stop():
                return
            with _leased(out, shard) as mine:
                if mine and not _ended(out, run, shard):
                    _answer(out, run, shard, model)
                    answered += 1
        if not answered:  # others are at all that is left
            time.sleep(_WAIT)


def pending(out: Path, run: Run) -> list[Shard]:
    """Shards that have neither answers nor a failure."""
    return [shard for shard in run.shards if not _ended(out, run, shard)]


def failures(out: Path, run: Run) -> dict[str, str]:
    """What shards were refused for, by their names."""
    files = {shard.name: _aside(out, shard, "failed") for shard in run.shards}
    return {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.exists()}


def forgive(out: Path, run: Run) -> None:
    """Let shards that failed be tried again, those that somebody is at excepted."""
    make_folders(out / ASIDE / "leases")
    for shard in pending_or_failed(out, run):
        with _leased(out, shard) as mine:
            if mine:
                if _aside(out, shard, "tries").exists():
                    _remove_left(out, run, shard)  # nobody could tell later that somebody died at it
                for what in ("failed", "tries"):
                    _aside(out, shard, what).unlink(missing_ok=True)


def pending_or_failed(out: Path, run: Run) -> list[Shard]:
    """Shards without answers."""
    return [shard for shard in run.shards if not answers_of(out, run, shard).exists()]


def _answer(out: Path, run: Run, shard: Shard, model: SlotModel) -> None:
    tries = _aside(out, shard, "tries")
    with storage(tries), tries.open("ab") as file:
        file.write(b".")
    if tries.stat().st_size > 1:  # somebody died at it
        _remove_left(out, run, shard)
    if tries.stat().st_size > TRIES:
        told = f"it was begun {TRIES} times and never ended. Give more memory, or smaller --rows and another --out."
        write_text(_aside(out, shard, "failed"), told)
        return
    try:
        step = run.options.question in STEPS
        answers = take_step(root_of(out, run), model, run, shard) if step else answer_shard(model, run, shard)
    except ModelError:
        raise
    except (SlotsError, MemoryError) as error:
        told = f"it takes more memory than there is: {error}. Take smaller --rows and another --out."
        write_text(_aside(out, shard, "failed"), told if isinstance(error, MemoryError) else str(error))
        return
    write_file(answers_of(out, run, shard), answers)
    tries.unlink(missing_ok=True)


def _remove_left(out: Path, run: Run, shard: Shard) -> None:
    """Remove what somebody who died had written of a shard; the lease is held, so that nobody writes it now."""
    for left in out.glob(f".{glob.escape(answers_of(out, run, shard).name)}.*.tmp"):
        left.unlink(missing_ok=True)


def _ended(out: Path, run: Run, shard: Shard) -> bool:
    return answers_of(out, run, shard).exists() or _aside(out, shard, "failed").exists()


def _aside(out: Path, shard: Shard, what: str) -> Path:
    return out / ASIDE / "leases" / f"{shard.name}.{what}"


@contextlib.contextmanager
def _leased(out: Path, shard: Shard) -> Iterator[bool]:
    """Whether the shard is this process's within the block."""
    # Never the fallback that only makes a file: that would outlive a killed worker.
    lock = FileLock(_aside(out, shard, "lock"), blocking=False, fallback_to_soft=False)
    with storage(out), contextlib.suppress(Timeout):  # which is an OSError as well
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()
