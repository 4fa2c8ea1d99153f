"""A circuit as a drawing: units as pictures, from the earliest on the left to the unit itself on the right."""

from __future__ import annotations

from markupsafe import Markup, escape

from backbones.explanations.circuits import Diagram, Unit
from protocols.pages.pictures import data_uri, diverging, png, signed_sum
from protocols.pages.plots.svg import element, words

_NODE, _KERNEL = 64, 30
_ACROSS, _DOWN = 230, 104
_TOP = 12
_ALONG = (0.25, 0.5, 0.75)  # where kernels lie on the lines of a source


def circuit(found: Diagram) -> Markup:
    """Draw a circuit diagram.

    Parameters
    ----------
    found : Diagram
        With one unit at its first level.

    Returns
    -------
    Markup
        An ``<svg>``. Lines are as wide as the share of the later unit's variance that they explain, and carry their
        kernel: red for, blue against.
    """
    n_levels = len(found.levels)
    rows = max(len(level) for level in found.levels)
    height, width = rows * _DOWN + _TOP, (n_levels - 1) * _ACROSS + _NODE + 24
    places: dict[tuple[int, Unit], tuple[float, float]] = {}
    for level, nodes in enumerate(found.levels):
        x = 12 + (n_levels - 1 - level) * _ACROSS
        for row, node in enumerate(nodes):
            places[level, node.unit] = (x, _TOP + (row + 0.5) * height / len(nodes) - _DOWN / 2)
    level_of = {unit: level for level, unit in places}
    lines, marks = [], []
    drawn: dict[Unit, int] = {}
    for edge in found.edges:
        x1, y1 = places[level_of[edge.source], edge.source]
        x2, y2 = places[level_of[edge.target], edge.target]
        x1, y1, y2 = x1 + _NODE, y1 + _NODE / 2, y2 + _NODE / 2
        wide = round(1 + 10 * max(0.0, min(edge.share, 1.0)), 2)
        lines.append(element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="edge", stroke_width=wide))
        order = drawn[edge.source] = drawn.get(edge.source, -1) + 1
        at = _ALONG[order % len(_ALONG)]  # lines of one source begin at one point
        kx, ky = x1 + at * (x2 - x1) - _KERNEL / 2, y1 + at * (y2 - y1) - _KERNEL / 2
        said = f"Weights of {edge.source} in {edge.target}, {edge.share:.0%} of its variance"
        marks.append(_image(data_uri(png(diverging(edge.kernel))), kx, ky, _KERNEL, said))
    for level, nodes in enumerate(found.levels):
        for node in nodes:
            left, top = places[level, node.unit]
            shown = data_uri(png(diverging(signed_sum(node.template))))
            marks.append(_image(shown, left, top, _NODE, f"{node.unit} in pixels"))
            marks.append(words(str(node.unit), left + _NODE / 2, top + _NODE + 13))
            if node.faithful is not None:
                marks.append(words(f"r {node.faithful:.2f}", left + _NODE / 2, top + _NODE + 26))
    drawing = Markup('<svg class="circuit" viewBox="0 0 {} {}" style="width:{}px" role="img" aria-label="{}">{}</svg>')
    said = f"Circuit of {found.levels[0][0].unit}"
    return drawing.format(width, height, width, said, Markup("").join([*lines, *marks]))


def _image(uri: str, x: float, y: float, side: float, said: str) -> Markup:
    """A picture in the drawing, with what it is as its title."""
    return Markup('<image href="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></image>').format(
        uri, round(x, 1), round(y, 1), side, side, escape(said)
    )
