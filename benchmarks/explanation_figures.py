"""Pictures of attributions side by side: methods in columns, images and Gaussian noise in rows."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from backbones.explanations.ascent import counterfactual
from protocols.pages.pictures import in_colour

ZOOM, GAP, TOP, LEFT = 3, 6, 30, 78


def picture(x, scaling):
    """A network's input as colours; ``scaling`` is the mean and the deviation that were taken out of it."""
    mean, deviation = scaling
    return (255 * (x * deviation + mean).clamp(0, 1)).byte().permute(1, 2, 0).numpy()


def tile(pixels):
    """Enlarge without smoothing."""
    return Image.fromarray(pixels).resize((ZOOM * pixels.shape[1], ZOOM * pixels.shape[0]), Image.Resampling.NEAREST)


def sheet(titles, rows):
    """Titles over columns; rows of a label and pictures."""
    side = ZOOM * rows[0][1][0].shape[0]
    width, height = LEFT + len(titles) * (side + GAP), TOP + len(rows) * (side + GAP)
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        pen.multiline_text(
            (LEFT + column * (side + GAP) + side // 2, TOP // 2), title, "black", anchor="mm", align="center"
        )
    for row, (label, pictures) in enumerate(rows):
        y = TOP + row * (side + GAP)
        pen.multiline_text((4, y + side // 2), label, "black", anchor="lm")
        for column, pixels in enumerate(pictures):
            page.paste(tile(pixels), (LEFT + column * (side + GAP), y))
    return page


def draw(folder, shown, x, y, names, net, scaling):
    """One sheet: each class's image or a noise input, then the attributions of every network and method."""
    chosen = [int(torch.nonzero(y == label)[1]) for label in range(8)]
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    inputs = torch.cat([x[chosen], noise])
    wanted = torch.cat([y[chosen], torch.tensor([0, 1, 4, 7])])
    labels = [names[label] for label in wanted[:8].tolist()] + [f"noise,\n{names[k]}" for k in wanted[8:].tolist()]
    titles, columns = ["input"], [[picture(row, scaling) for row in inputs]]
    for name, (model, methods) in shown.items():
        for method, explain in methods.items():
            titles.append(f"{name}\n{method}" if len(shown) > 1 else method.replace(" ", "\n"))
            found = explain(model, inputs, wanted)
            columns.append([in_colour(np.asarray(part.double())) for part in found])
    rows = [(label, [column[i] for column in columns]) for i, label in enumerate(labels)]
    folder.mkdir(parents=True, exist_ok=True)
    sheet(titles, rows).save(folder / f"explanations-{net}.png", optimize=True)


def draw_counterfactuals(folder, models, x, y, names, net, scaling):
    """One sheet: images, and what five steps towards each of some classes make of them, for each network."""
    chosen = [int(torch.nonzero(y == label)[1]) for label in (0, 1, 4, 5, 6, 7)]
    inputs, targets = x[chosen], (0, 1, 4, 5, 7)
    for name, model in models.items():
        columns = [[picture(row, scaling) for row in inputs]]
        for target in targets:
            columns.append([picture(row, scaling) for row in counterfactual(model, inputs, target).inputs])
        rows = [(names[int(y[place])], [column[i] for column in columns]) for i, place in enumerate(chosen)]
        page = sheet(["input", *(f"towards\n{names[target]}" for target in targets)], rows)
        page.save(folder / f"explanations-{net}-towards-{name.lower()}.png", optimize=True)
