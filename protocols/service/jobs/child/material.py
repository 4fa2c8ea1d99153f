"""What a job works on, as files in a folder of its own: inputs, the items behind them, and their labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.service.answering import inputs
from protocols.service.settings import Limits
from slots.errors import DataError
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs

_LIST = "items.json"
_ROWS = "x.npy"
_OTHER = "It came for another model of this name; delete it."


@dataclass(frozen=True)
class Material:
    """The items of a job, in the order in which they came in.

    Parameters
    ----------
    numbers : list of int
        Their numbers in the database.
    ids : list of str
        Their ids.
    labels : dict of int to str
        By row, of those that people labelled.
    left_out : int
        Items that would have belonged to it, and are too many (count).
    disagreed : int
        Labelled items that are no examples because people do not agree on them, or are not sure (count).
    """

    numbers: list[int]
    ids: list[str]
    labels: dict[int, str] = field(default_factory=dict)
    left_out: int = 0
    disagreed: int = 0


class MaterialWriter:
    """Writes the inputs of a job one by one, so that no more than one of them is in memory.

    Parameters
    ----------
    folder : Path
        An empty folder.
    kind : {"images", "features", "text"}
        What the model takes.
    shape : sequence of int
        Of one input.
    n : int
        How many there will be.
    """

    def __init__(self, folder: Path, kind: str, shape: Sequence[int], n: int) -> None:
        self._folder, self._kind, self._shape = folder, kind, tuple(shape)
        self._texts: list[str] = []
        self._rows: Any = None
        if kind == "features":
            self._rows = np.lib.format.open_memmap(folder / _ROWS, mode="w+", dtype=np.float32, shape=(n, *self._shape))

    def put(self, row: int, content: bytes) -> None:
        """Write one input.

        Raises
        ------
        DataError
            If it is of another kind or size than the model takes.
        """
        if self._kind == "features":
            self._rows[row] = _numbers(content, self._shape)
        elif self._kind == "text":
            self._texts.append(_text(content))
        else:
            (self._folder / f"{row:07d}").write_bytes(content)

    def close(self, material: Material) -> None:
        """Write the list of items; the material is whole then."""
        if self._rows is not None:
            self._rows.flush()
            self._rows = None
        document = {**asdict(material), "texts": self._texts}
        (self._folder / _LIST).write_text(json.dumps(document), encoding="utf-8")


def read_list(folder: Path) -> Material:
    """The items of a job's material; none where it has none."""
    try:
        found: Mapping[str, Any] = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Material([], [])
    labels = {int(row): str(name) for row, name in found["labels"].items()}
    return Material(found["numbers"], found["ids"], labels, found["left_out"], found["disagreed"])


def read_inputs(folder: Path, model: SlotModel) -> RawInputs:
    """The inputs of a job's material, as the model takes them.

    Raises
    ------
    DataError
        If an item is not what the model takes; it says which.
    """
    items = read_list(folder)
    if model.preprocessing.kind == "features":
        rows: RawInputs = np.load(folder / _ROWS, allow_pickle=False)
        return rows
    if model.preprocessing.kind == "text":
        return _texts(json.loads((folder / _LIST).read_text(encoding="utf-8"))["texts"])
    return _images(model, [(folder / f"{row:07d}").read_bytes() for row in range(len(items.ids))])


def as_inputs(model: SlotModel, contents: Sequence[bytes]) -> npt.NDArray[Any]:
    """Stored contents as the model takes them: the same as when they came.

    Parameters
    ----------
    model : SlotModel
        Says which kind.
    contents : sequence of bytes
        Rows of float32 numbers, texts in UTF-8, or image files.

    Returns
    -------
    array of shape (example, ...)

    Raises
    ------
    DataError
        If one is of another kind or size than the model takes.
    """
    if model.preprocessing.kind == "features":
        return np.stack([_numbers(it, model.preprocessing.shape) for it in contents])
    if model.preprocessing.kind == "text":
        return _texts([_text(it) for it in contents])
    return _images(model, contents)


def _numbers(content: bytes, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    values = np.frombuffer(content, "<f4") if len(content) % 4 == 0 else np.zeros(0, np.float32)
    if values.size != math.prod(shape):
        raise DataError(f"An item must have {math.prod(shape)} numbers, got {values.size}. {_OTHER}")
    return values.reshape(tuple(shape))


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"An item must be text in UTF-8, got {len(content)} other bytes. {_OTHER}") from error


def _texts(given: Sequence[str]) -> npt.NDArray[Any]:
    texts = np.empty(len(given), dtype=object)
    texts[:] = list(given)
    return texts


def _images(model: SlotModel, files: Sequence[bytes]) -> npt.NDArray[Any]:
    return inputs.images(model, files, replace(Limits(), images=max(1, len(files)), all_pixels=0))
