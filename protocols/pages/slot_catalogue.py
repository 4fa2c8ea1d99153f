"""A catalogue of slots as one picture: what each looks like, the most used first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from protocols.pages.pictures import diverging, in_colour

_BAR = np.array([198, 40, 32], np.uint8)
_BAR_HEIGHT = 2
_GAP = 3
_TITLE_HEIGHT = 16  # pixels


def catalogue(
    templates: Float[np.ndarray, "slot channel height width"],
    wins: Int[np.ndarray, " slot"],
    *,
    columns: int = 20,
    zoom: int = 4,
    limit: int | None = None,
    title: str = "",
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay slots out in rows, ordered by their wins, each with a bar as long as its share of the most wins.

    Parameters
    ----------
    templates : float array of shape (slot, channel, height, width)
        One or three channels, at least one slot. One channel without a number below 0 is shown in greys from black,
        one with signs in red and blue around white, three as tints of middle grey; each slot on a scale of its own.
    wins : int array of shape (slot,)
        Inputs that belong to each slot, >= 0; equal numbers keep the order of the slots.
    columns : int, default 20
        Slots in a row, >= 1.
    zoom : int, default 4
        Pixels of the picture to a pixel of a template, >= 1.
    limit : int, optional
        Only the first so many, >= 1.
    title : str, optional
        Written above.

    Returns
    -------
    uint8 array of shape (height, width, 3)

    Raises
    ------
    ValueError
        If the shapes disagree, there are other than one or three channels, or a number is out of its range.

    Examples
    --------
    >>> catalogue(np.ones((3, 1, 2, 2)), np.array([1, 5, 2]), columns=2, zoom=1).shape
    (19, 13, 3)
    """
    if (
        templates.ndim != 4
        or len(templates) == 0
        or templates.shape[1] not in {1, 3}
        or wins.shape != (len(templates),)
    ):
        raise ValueError(
            "`templates` must have shape (slot, 1 or 3, height, width) with a number of wins each, got "
            f"{templates.shape} and {wins.shape}. Show other channels one by one."
        )
    if min(columns, zoom) < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"`columns`, `zoom` and `limit` must be >= 1, got {columns}, {zoom} and {limit}. Leave limit out for all."
        )
    order = np.argsort(-wins, kind="stable")[:limit]
    grey = templates.shape[1] == 1 and bool(templates.min() >= 0)
    height, width = templates.shape[2] * zoom, templates.shape[3] * zoom
    down, right = height + 1 + _BAR_HEIGHT + _GAP, width + _GAP  # from one slot to the next
    first = _TITLE_HEIGHT if title else _GAP
    n_rows, n_across = -(-len(order) // columns), min(columns, len(order))
    canvas = np.full((first + n_rows * down, _GAP + n_across * right, 3), 255, np.uint8)
    for place, slot in enumerate(order):
        top, left = first + place // columns * down, _GAP + place % columns * right
        tile = _tile(templates[slot], grey=grey).repeat(zoom, 0).repeat(zoom, 1)
        canvas[top : top + height, left : left + width] = tile
        length = round(width * int(wins[slot]) / max(1, int(wins.max())))
        canvas[top + height + 1 : top + height + 1 + _BAR_HEIGHT, left : left + length] = _BAR
    return _titled(canvas, title)


def _tile(template: npt.NDArray[np.floating[Any]], *, grey: bool) -> npt.NDArray[np.uint8]:
    """One slot in colours."""
    if len(template) == 3:
        return in_colour(template)
    if not grey:
        return diverging(template[0])
    shades = np.rint(255 * template[0] / (template[0].max() or 1.0)).astype(np.uint8)
    return np.repeat(shades[..., None], 3, axis=2)


def _titled(canvas: npt.NDArray[np.uint8], title: str) -> npt.NDArray[np.uint8]:
    """The picture with its title, as far as it fits, in the free space above."""
    if not title:
        return canvas
    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).text((_GAP, 2), title, fill=(40, 40, 40))
    return np.asarray(image)
