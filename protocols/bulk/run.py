"""What a run over shards does: with which model, to which shards, where the answers go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

Question = Literal["predict", "ood"]


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
    question : {"predict", "ood"}
        What is asked of each row.
    false_alarm_rate : float, default 0.05
        Of ``ood``.
    rows : int
        Most rows of a shard.
    text_column, id_column : str, optional
        Columns of tables.
    """

    question: Question
    rows: int
    false_alarm_rate: float = 0.05
    text_column: str | None = None
    id_column: str | None = None


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


def model_folder(out: Path) -> Path:
    """Where a run keeps its own copy of the model: it answers to the end as it began, whatever the other learns."""
    return out / ASIDE / "model"


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
            write_text(out / ASIDE / _FILE, json.dumps({"schema": SCHEMA, **asdict(run)}, indent=1) + "\n")
    return run


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
    return Run(before.model, before.options, (*before.shards, *(it for it in shards if it.name not in known)))
