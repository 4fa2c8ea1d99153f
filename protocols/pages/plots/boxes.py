"""A picture with numbered boxes on it, and a bar in the colour of a box."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from protocols.pages.cards import Picture
from protocols.pages.plots.svg import element

COLOURS = 6
"""Boxes have so many colours before they repeat."""

_BAR = 220
_LABEL = 9.0


def boxed(shown: Picture, pixels: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> Markup:
    """A picture with boxes.

    Parameters
    ----------
    shown : Picture
        The picture, at its size on the page.
    pixels : tuple of two int
        Height and width of what it shows.
    boxes : sequence of (top, left, bottom, right)
        In these pixels; numbered from 1 in their order.

    Returns
    -------
    Markup
        An ``<svg>``.
    """
    down, across = shown.height / pixels[0], shown.width / pixels[1]
    parts = [element("image", href=shown.uri, x=0, y=0, width=shown.width, height=shown.height)]
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        kind = f"box c{(number - 1) % COLOURS}"
        x, y = round(left * across, 1), round(top * down, 1)
        width, height = round((right - left) * across, 1), round((bottom - top) * down, 1)
        parts.append(element("rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, class_=kind))
        corner = (x + 3, y + _LABEL + 3) if number % 2 else (x + width - _LABEL, y + height - 4)
        parts.append(element("text", str(number), x=corner[0], y=corner[1], class_=kind))
    said = f"{shown.alt}, with {len(boxes)} patches outlined"
    return Markup(
        '<svg class="boxed" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
    ).format(shown.width, shown.height, shown.width, shown.height, escape(said), Markup("").join(parts))


def share_bar(share: float, number: int) -> Markup:
    """A share of a whole as a bar in the colour of box ``number``.

    Parameters
    ----------
    share : float in [0, 1]
        How much of the full length it is.
    number : int
        From 1.
    """
    rect = element(
        "rect", x=0, y=1, width=max(1.0, round(share * _BAR, 1)), height=14, rx=2, class_=f"c{(number - 1) % COLOURS}"
    )
    return Markup('<svg class="share" viewBox="0 0 {} 16" aria-hidden="true">{}</svg>').format(_BAR, rect)
