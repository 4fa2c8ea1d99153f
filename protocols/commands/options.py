"""Options that several commands have, and what they stand for. Light: no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from protocols.data.dataset import Dataset
    from slots.model.slot_model import SlotModel

DATA = "digits, mnist, fashion_mnist, cifar10, an .npz archive, or a folder of class folders of images."
Data = Annotated[str, typer.Option(help=DATA)]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets lie. Default: $SLOTS_DATA_DIR, else a cache folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Model = Annotated[Path, typer.Argument(help="A model folder that `slots fit` wrote.")]


def load(data: str, data_dir: Path | None, model: SlotModel | None = None) -> Dataset:
    """Load data; the images of a folder in the size that a model was fitted on."""
    from protocols.data.loading import NAMES, load_data

    size = None
    if model is not None and model.preprocessing.kind == "images" and data not in NAMES and Path(data).is_dir():
        size = model.preprocessing.shape[1:]
    return load_data(data, data_dir=data_dir, image_size=size)  # type: ignore[arg-type]


def part_of(data: Dataset, part: str) -> tuple[Any, Any]:
    """Inputs and labels of one part; a data set without that part gives the other one."""
    if part not in ("train", "test"):
        raise usage(f"--part must be train or test, got {part!r}.")
    return (data.x_train, data.y_train) if part == "train" else (data.x_test, data.y_test)


def usage(sentence: str) -> Exception:
    """The error of an option that cannot be honoured."""
    from slots.errors import UsageError

    return UsageError(sentence)
