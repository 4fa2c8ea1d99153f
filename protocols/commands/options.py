"""Options that several commands have, and what they stand for. Light: no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from protocols.data.dataset import Dataset
    from slots.model.slot_model import SlotModel

DATA = (
    "digits, mnist, fashion_mnist, cifar10; a file of text or embeddings (.csv, .jsonl, .parquet, .npy, .npz); or a "
    "folder of class folders of images."
)
Data = Annotated[str, typer.Option(help=DATA)]
TextColumn = Annotated[str | None, typer.Option(help="Column of a table with the texts. Default: found by its name.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of a table with the labels. Default: found by its name.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets lie. Default: $SLOTS_DATA_DIR, else a cache folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Half = Annotated[
    bool,
    typer.Option(
        "--half",
        help="Run the network in bfloat16, where the device has instructions for it: faster. Features then "
        "differ a little, and a few answers with them.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Wait = Annotated[float, typer.Option(min=0.0, help="Seconds to wait while another process is writing to the model.")]
Shards = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Files of any size instead, e.g. 'data/*.parquet' or big.npy: answered shard by shard into --out FOLDER. "
        "Run it again, or on several machines at once, to go on.",
    ),
]
Rows = Annotated[int, typer.Option(min=1, help="With --shards: most rows of one.")]
Workers = Annotated[int, typer.Option(min=1, help="With --shards: processes that share them out.")]
Engine = Annotated[str, typer.Option(help="With --shards: processes of this machine, or ray.")]
IdColumn = Annotated[str | None, typer.Option(help="With --shards: column of the tables that names their rows.")]

ROWS = 100_000
"""Rows of a shard where nothing is said."""
Model = Annotated[Path, typer.Argument(help="A model folder that `slots fit` wrote.")]


def load(
    data: str,
    data_dir: Path | None,
    model: SlotModel | None = None,
    *,
    columns: tuple[str | None, str | None] = (None, None),
    whole: Literal["train", "test"] | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
) -> Dataset:
    """Load data for a fit, or for a model: the images of a folder in its size, and all rows of a file it does not know.

    Parameters
    ----------
    data : str
        A name or path.
    data_dir : Path, optional
        Where named data sets lie.
    model : SlotModel, optional
        What the data is for. A file without parts of its own stays whole, as the test part, unless the model was fitted
        on it and has seen most of its rows.
    columns : pair of str or None
        Columns of the text and of the labels.
    whole : {"train", "test"}, optional
        Part that gets all rows of any file without parts of its own. Default: as ``model`` decides.
    image_size, crop : optional
        How images of a folder are read. Default: as those that the model was fitted on; else as they are.

    Returns
    -------
    Dataset
    """
    from protocols.data.dataset import undivided
    from protocols.data.loading import NAMES, load_data

    if model is not None and model.preprocessing.kind == "images" and data not in NAMES and Path(data).is_dir():
        _, height, width = model.preprocessing.shape
        image_size, crop = (height, width), (model.backbone_spec or ("", {}))[1].get("crop")
    loaded = load_data(
        data,
        data_dir=data_dir,
        image_size=image_size,
        crop=crop,
        text_column=columns[0],
        label_column=columns[1],
    )
    if whole is not None:
        return undivided(loaded, whole)
    if model is None or (model.history and loaded.is_named_by(model.history[0].figures)):
        return loaded
    return undivided(loaded)


def part_of(data: Dataset, part: str) -> tuple[Any, Any]:
    """Inputs and labels of one part; a data set without that part gives the other one."""
    if part not in ("train", "test"):
        raise usage(f"--part must be train or test, got {part!r}.")
    return (data.x_train, data.y_train) if part == "train" else (data.x_test, data.y_test)


def files_of(data: Dataset, part: str) -> tuple[str, ...]:
    """Of a folder of images, the file of each example of one part; else nothing."""
    return data.train_files if part == "train" else data.test_files


def over_shards(
    model: Path,
    question: Literal["predict", "ood", "propose"],
    pattern: str,
    out: Path | None,
    *,
    rows: int,
    workers: int,
    engine: str,
    text_column: str | None,
    id_column: str | None,
    device: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Answer all rows of all shards, and say what came of it; see `protocols.bulk.answer_shards`.

    ``asked`` are options of the question alone, by their names in `protocols.bulk.Options`.
    """
    from protocols.bulk.engines import answer_shards
    from protocols.bulk.run import Options
    from protocols.commands.terminal import print_json, progress_bar, say, stop_on_signal

    if out is None:
        raise usage("--shards writes a file a shard and needs --out FOLDER, got none. Add --out FOLDER.")
    if engine not in ("processes", "ray"):
        raise usage(f"--engine must be processes or ray, got {engine!r}.")
    who: Literal["processes", "ray"] = "ray" if engine == "ray" else "processes"
    told = "Stopping after the shards at hand. Once more to give up; what is written stays."
    options = Options(question, rows, text_column=text_column, id_column=id_column, **asked)
    with progress_bar() as progress, stop_on_signal(told) as stop:
        found = answer_shards(
            model,
            pattern,
            out,
            options,
            workers=workers,
            engine=who,
            device=device,
            progress=progress,
            stop=stop,
        )
    if as_json:
        print_json({"model": str(model), "out": str(out), **found.document()})
    else:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
        say(f"{found.rows:,} rows in {found.shards} of {found.of} shards: {kinds or 'none yet'}.")
        if found.proposal is None:
            say(f"Answers: {out}")
        else:
            say(str(found.proposal), f"To label: {out / 'queries.csv'}", f"Groups: {out / 'groups'}")
    if found.failed:
        name, why = next(iter(found.failed.items()))
        raise usage(f"{len(found.failed)} of {found.of} shards could not be answered, {name!r} first: {why}")
    if found.shards < found.of:
        raise usage(f"{found.of - found.shards} of {found.of} shards are left. Run the same command again to go on.")


def usage(sentence: str) -> Exception:
    """The error of an option that cannot be honoured."""
    from slots.errors import UsageError

    return UsageError(sentence)
