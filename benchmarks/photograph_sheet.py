"""One sheet of photographs: what the network saw, which of it counted, and what would change its answer."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from protocols.pages.pictures import in_colour

SIDE, GAP, TOP, BELOW = 144, 6, 40, 18
COLOURS = 256  # of the whole sheet: few enough for a small file


def pixels(values, scaling):
    """A photograph as it is; with no scaling an attribution, in colours around grey."""
    if scaling is None:
        return in_colour(np.asarray(values.double()))
    centre, scale = scaling
    return (values * scale + centre).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def lit(photograph, importance):
    """The photograph, brighter where the importance (height, width) is large and dark where it is small."""
    share = (importance / np.quantile(importance.numpy(), 0.98)).clamp(0, 1)
    return -1 + (photograph + 1) * (0.2 + 0.8 * share)


def draw(rows):
    """Titles over columns; in each row the pictures of a photograph, with words below.

    ``rows`` has for each photograph, by the title of the column, a float tensor (3, height, width), words below it, and
    what turns it into colours, see `pixels`.
    """
    font = ImageFont.load_default(12)
    titles = list(rows[0])
    width, height = len(titles) * (SIDE + GAP) + GAP, TOP + len(rows) * (SIDE + BELOW + GAP)
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        x = GAP + column * (SIDE + GAP)
        pen.multiline_text((x + SIDE // 2, TOP // 2), title, "black", font=font, anchor="mm", align="center")
        for row, shown in enumerate(rows):
            values, words, scaling = shown[title]
            y = TOP + row * (SIDE + BELOW + GAP)
            picture = Image.fromarray(pixels(values, scaling)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(picture, (x, y))
            pen.text((x + SIDE // 2, y + SIDE + BELOW // 2), words, "black", font=font, anchor="mm")
    return page.quantize(COLOURS, dither=Image.Dither.NONE)
