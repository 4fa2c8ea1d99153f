"""What a run over shards does: with which model, to which shards, where the answers go."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock

from protocols.bulk.shards import Shard
from slots.errors import DataError, UsageError
from slots.storage.atomic import make_folders, storage, write_file, write_text
from slots.storage.mirroring import CurrentFiles, current_files
from slots.storage.plain_files import read_plain
from slots.storage.states import HEADER, MOST_JSON

SCHEMA = 1
_FILE = "run.json"

ASIDE = ".run"
"""Folder beside the answers for all that is none; readers of Parquet folders skip its name."""

Question = Literal["predict", "ood", "propose", "unmatched", "covered", "groups"]

STEPS: dict[str, str] = {"unmatched": f"{ASIDE}/unmatched", "covered": f"{ASIDE}/covered", "groups": "groups"}
"""Passes of a proposal over the shards in their order, each a run in a folder of its own within the proposal's."""


@dataclass(frozen=True)
class PinnedModel:
    """One state of a model folder, by its content.

    Parameters
    ----------
    folder : str
        Absolute path of where it came from.
    state : str
        Name of the state there.
    digest : str
        SHA-256 of its header, which holds the digests of all its files.
    """

    folder: str
    state: str
    digest: str


@dataclass(frozen=True)
class Options:
    """What decides the answers beside model and shards.

    Parameters
    ----------
    question : {"predict", "ood", "propose"} or one of `STEPS`
        What is asked of each row.
    rows : int
        Most rows of a shard.
    false_alarm_rate : float, default 0.05
        Of ``ood``.
    text_column, id_column : str, optional
        Columns of tables.
    half : bool, default False
        See `slots.SlotModel.half_precision`. Processors with instructions for bfloat16 and others then answer a little
        differently.
    budget, stop_below, radius, purity, max_candidates
        Of ``propose``, as `slots.update.propose` takes them.
    """

    question: Question
    rows: int
    false_alarm_rate: float = 0.05
    text_column: str | None = None
    id_column: str | None = None
    half: bool = False
    budget: int | None = None
    stop_below: int | None = None
    radius: float | None = None
    purity: float = 0.95
    max_candidates: int = 2000


@dataclass(frozen=True)
class Run:
    """A run over shards: everything that its answers depend on.

    Parameters
    ----------
    model : PinnedModel
        Who answers, from the first shard to the last, whatever the folder learns meanwhile.
    options : Options
        What is asked.
    shards : tuple of Shard
        Of what.
    """

    model: PinnedModel
    options: Options
    shards: tuple[Shard, ...]

    @cached_property
    def files(self) -> dict[str, int]:
        """The places of all files, by their paths."""
        return {file: place for place, file in enumerate(dict.fromkeys(it.file for it in self.shards))}

    def name_of(self, file: str) -> str:
        """Name of a file within the folder that holds all of them: the same wherever that folder lies."""
        return os.path.relpath(file, self._top).replace(os.sep, "/")

    @cached_property
    def _top(self) -> str:
        return os.path.commonpath([os.path.dirname(it) for it in self.files])


def model_folder(out: Path) -> Path:
    """Where a run keeps its own copy of the model: it answers to the end as it began, whatever the other learns."""
    return out / ASIDE / "model"


def root_of(out: Path, run: Run) -> Path:
    """Folder of the whole run: that of the proposal where the run is one of its steps."""
    step = STEPS.get(run.options.question)
    return out if step is None else out.parents[len(Path(step).parts) - 1]


def answers_of(out: Path, run: Run, shard: Shard) -> Path:
    """The file of a shard's answers."""
    return out / f"{shard.name}{'.npy' if run.options.question == 'covered' else '.parquet'}"


def step_answers(root: Path, step: Question, shard: Shard) -> Path:
    """The file that a step of a proposal writes for a shard."""
    return root / STEPS[step] / f"{shard.name}{'.npy' if step == 'covered' else '.parquet'}"


def begin(out: Path, model: Path, options: Options, shards: Sequence[Shard]) -> Run:
    """Write a run down in its folder with a copy of the model's current state, or go on with the one that is there.

    Parameters
    ----------
    out : Path
        Where the answers go; made where it is missing.
    model : Path
        A model folder.
    options : Options
        What is asked.
    shards : sequence of Shard
        Of what; files that came since the run began are added.

    Returns
    -------
    Run
        As it stands in the folder now.

    Raises
    ------
    UsageError
        If the folder holds another run: of another model or other options, or files of it have changed.
    ModelError
        If this is no model folder.
    """
    with storage(out):
        make_folders(out / ASIDE)
        with FileLock(out / ASIDE / "lock", fallback_to_soft=False):
            if (out / ASIDE / _FILE).exists():
                run = _continued(read_run(out), str(model.absolute()), options, shards, out)
            else:
                run = Run(_copied(current_files(model), model, out), options, tuple(shards))
            _write(out, run)
    return run


def begin_step(root: Path, run: Run, question: Question) -> tuple[Path, Run]:
    """Write one of the `STEPS` of a run down in its folder, or find it there; gives the folder and the step."""
    out, step = root / STEPS[question], replace(run, options=replace(run.options, question=question))
    with storage(out):
        make_folders(out / ASIDE)
        with FileLock(out / ASIDE / "lock", fallback_to_soft=False):
            _write(out, step)
    return out, step


def read_run(out: Path) -> Run:
    """The run that a folder holds.

    Raises
    ------
    DataError
        If its file is damaged, or a newer version wrote it.
    """
    path = out / ASIDE / _FILE
    try:
        found = json.loads(read_plain(path, most=MOST_JSON))
        if found["schema"] != SCHEMA:
            raise DataError(f"`{path}` has schema {found['schema']}, this version reads {SCHEMA}. Upgrade slots.")
        shards = tuple(Shard(**{**it, "groups": it["groups"] and tuple(it["groups"])}) for it in found["shards"])
        return Run(PinnedModel(**found["model"]), Options(**found["options"]), shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"`{path}` must say what a run does, got: {error!r:.200}. Name another --out.") from error


def _write(out: Path, run: Run) -> None:
    write_text(out / ASIDE / _FILE, json.dumps({"schema": SCHEMA, **asdict(run)}, indent=1) + "\n")


def _copied(files: CurrentFiles, model: Path, out: Path) -> PinnedModel:
    """Copy a state; its pointer comes last, so that a copy without all its files is no model."""
    if others := [it.name for it in out.iterdir() if not it.name.startswith(".")]:
        raise UsageError(f"`out` must be a new folder, got {out} with {others[0]!r}. Name another.")
    for name, content in files.files.items():
        write_file(model_folder(out) / name, content)
    header = files.files[f"states/{files.state}/{HEADER}"]
    return PinnedModel(str(model.absolute()), files.state, hashlib.sha256(header).hexdigest())


def _continued(before: Run, model: str, options: Options, shards: Sequence[Shard], out: Path) -> Run:
    asked = {"model": model, **asdict(options)}
    for name, old in {"model": before.model.folder, **asdict(before.options)}.items():
        if old != asked[name]:
            raise UsageError(f"`out` holds answers with {name} {old!r}, asked for was {asked[name]!r}. Name another.")
    known = {it.name: it for it in before.shards}
    for shard in shards:
        if known.get(shard.name, shard) != shard:
            raise UsageError(
                f"`shards` must be files as they were when {out} was begun, {shard.file} has changed. "
                "Name another --out."
            )
    fresh = [it for it in shards if it.name not in known]
    if fresh and options.question == "propose":
        raise UsageError(
            f"`shards` must be the files that {out} was begun with, since all are weighed against each other, got "
            f"{fresh[0].file} as well. Name another --out."
        )
    return Run(before.model, before.options, (*before.shards, *fresh))
