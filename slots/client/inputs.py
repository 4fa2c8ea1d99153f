"""Inputs as requests carry them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slots.errors import DataError

_LINES, _LINE_BYTES = 64, 1 << 20  # of one request of a stream, at most; a single line may have more
_FILES, _ROWS, _BYTES = 64, 1024, 4 << 20  # of one request, at most: what a service takes by default, or less
_NUMBER_BYTES = 26  # of a float64 in JSON and what parts it from the next


def as_inputs(x: Any) -> list[Any]:
    """Inputs as JSON has them: rows as lists, texts as they are, images as files in base64.

    Parameters
    ----------
    x : array or sequence
        As `Client.predict` takes it.

    Returns
    -------
    list

    Raises
    ------
    DataError
        If they are of no such kind.
    """
    if hasattr(x, "detach"):  # a tensor, on whatever device; torch itself is not needed here
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (3, 4):
        return [_png(image) for image in x]
    if isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype.kind in "fiu":
        return list(x.tolist())
    if isinstance(x, str | bytes | Path):
        raise DataError("`x` must be several inputs, got one. Put it into a list.")
    given = list(x)
    if all(isinstance(it, str) for it in given):
        return given
    if all(isinstance(it, bytes | Path) for it in given):
        files = (it.read_bytes() if isinstance(it, Path) else it for it in given)
        return [base64.b64encode(file).decode() for file in files]
    try:
        rows = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2:
        raise DataError("`x` must be rows of numbers, texts, image files or uint8 images, got something else.")
    return list(rows.tolist())


def in_requests(inputs: list[Any]) -> Iterator[list[Any]]:
    """Inputs in lists as long as one request may be; no inputs are one empty list.

    Parameters
    ----------
    inputs : list
        Of `as_inputs`.

    Yields
    ------
    list
    """
    part: list[Any] = []
    size = 0
    for it in inputs:
        more = _bytes(it)
        if part and (len(part) == (_FILES if isinstance(it, str) else _ROWS) or size + more > _BYTES):
            yield part
            part, size = [], 0
        part.append(it)
        size += more
    if part or not inputs:
        yield part


def _bytes(sent: Any) -> int:
    """Most bytes that an input takes in JSON."""
    if isinstance(sent, str):
        return len(sent) if sent.isascii() else 6 * len(sent)
    return _NUMBER_BYTES * len(sent)


def as_line(it: Any) -> bytes:
    """An item of a stream as its line.

    Parameters
    ----------
    it : object
        One input, or a pair of its id and itself.

    Returns
    -------
    bytes
        With the line's end.
    """
    item_id, given = it if isinstance(it, tuple) and len(it) == 2 and isinstance(it[0], str) else (None, it)
    (sent,) = as_inputs(given[None] if hasattr(given, "shape") else [given])
    return json.dumps({"input": sent} | ({} if item_id is None else {"id": item_id})).encode() + b"\n"


def in_turns(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in lists as long as one request of a stream may be.

    Parameters
    ----------
    lines : iterable of bytes
        Any number.

    Yields
    ------
    list of bytes
    """
    several: list[bytes] = []
    size = 0
    for line in lines:
        if several and (len(several) == _LINES or size + len(line) > _LINE_BYTES):
            yield several
            several, size = [], 0
        several.append(line)
        size += len(line)
    if several:
        yield several


def _png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """A picture as a file in base64, without loss."""
    from PIL import Image

    kept = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(kept, "png")
    return base64.b64encode(kept.getvalue()).decode()
