"""Pictures of what a model looks for: gradients of classes and slots on test images and on noise, and first filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from backbones import AbstractBackbone, gradient
from protocols.data.dataset import Dataset
from protocols.pages.pictures import diverging, in_colour, png, signed_sum
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.storage.atomic import write_file

Grid = list[tuple[str, list[npt.NDArray[np.uint8]]]]
"""Rows of a figure: what is said beside each, and its pictures."""

_CLASSES: Final = 10
_FILTERS: Final = 128
_PICTURE: Final = 64  # side of a small picture in a figure, pixels
_MARGIN: Final = 150  # room for the words beside a row


def write_figures(model: SlotModel, data: Dataset, folder: Path) -> list[Path]:
    """Write ``gradients.png`` and, where the backbone begins with a convolution, ``filters.png``.

    Parameters
    ----------
    model : SlotModel
        Of images.
    data : Dataset
        Its test part gives one image a class, up to ten: the first that is answered right.
    folder : Path
        Made where it is missing.

    Returns
    -------
    list of Path
        What was written; nothing for models of features.
    """
    if model.preprocessing.kind != "images" or model.head.n_slots == 0 or len(data.x_test) == 0:
        return []
    model.eval()
    written = [_write(folder / "gradients.png", gradient_rows(model, data))]
    kernels = first_filters(model.backbone)
    if kernels is not None:
        written.append(_write(folder / "filters.png", _filter_rows(kernels)))
    return written


def gradient_rows(model: SlotModel, data: Dataset, *, seed: int = 0) -> Grid:
    """The rows of ``gradients.png``: the same questions asked of test images and of Gaussian noise.

    Parameters
    ----------
    model : SlotModel
        On images, with a backbone that has gradients.
    data : Dataset
        What it was fitted on; the images come from its test part.
    seed : int, default 0
        Of the noise, which has the mean and deviation of the images.

    Returns
    -------
    list of (words, pictures)
    """
    chosen = examples(model, data)
    x = model.preprocessing(data.x_test[chosen], model.device)
    labels = torch.from_numpy(data.y_test[chosen]).to(model.device)
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.randn(x.shape, generator=generator) * x.std().cpu() + x.mean().cpu()).to(x)
    rows: Grid = [("test image", [_plain(image) for image in data.x_test[chosen]])]
    for words, inputs in (("", x), (", noise", noise)):
        for kind, draw in _WAYS.items():
            directions = class_directions(model, inputs, labels)
            rows.append((f"class, {kind}{words}", _coloured(draw(model.backbone, inputs, directions))))
        slots = best_slots(model, inputs, labels)
        weights = model.featurizer.directions(model.head.weights.detach()[slots])
        rows.append((f"slot, gates held{words}", _coloured(held_gradient(model.backbone, inputs, weights))))
    return rows


def examples(model: SlotModel, data: Dataset) -> npt.NDArray[np.int64]:
    """Places in the test part of one image a class: the first of the class that is answered right, else the first."""
    found = []
    for label in np.unique(data.y_test[data.y_test >= 0])[:_CLASSES]:
        if not bool((model.head.labels == int(label)).any()):
            continue
        places = np.flatnonzero(data.y_test == label)[:200]
        right = model.predict(data.x_test[places]).labels == label
        found.append(places[int(right.argmax())])
    return np.array(found, np.int64)


@torch.no_grad()
def class_directions(model: SlotModel, x: Tensor, labels: Tensor) -> Tensor:
    """The direction whose inner product with the unit feature is the pooled score of a class.

    Parameters
    ----------
    model : SlotModel
        On images; its slots of the class make the direction.
    x : float tensor of shape (batch, channel, height, width)
        Scaled inputs.
    labels : int64 tensor of shape (batch,)
        The class asked about, of each input.

    Returns
    -------
    float tensor of shape (batch, feature)
        ``sum_k softmax(beta s)_k w_k`` over the trained slots of the class, with ``s`` their cosines.
    """
    scores = _own_scores(model, x, labels)
    pooled = scores.masked_fill(~model.head.pooled, -torch.inf)  # slots that were added raw are not pooled
    pooled = torch.where(pooled.isfinite().any(1, keepdim=True), pooled, scores)
    return (model.head.beta * pooled).softmax(1) @ model.featurizer.directions(model.head.weights.detach())


@torch.no_grad()
def best_slots(model: SlotModel, x: Tensor, labels: Tensor) -> Tensor:
    """The slot of each label that is nearest to the input."""
    return _own_scores(model, x, labels).argmax(1)


def _own_scores(model: SlotModel, x: Tensor, labels: Tensor) -> Tensor:
    unit = normalize(model.featurizer.project(model.backbone(x)).float())
    scores: Tensor = unit @ model.head.weights.detach().T
    return scores.masked_fill(labels[:, None] != model.head.labels, -torch.inf)


def held_gradient(backbone: nn.Module, x: Tensor, directions: Tensor) -> Tensor:
    """The backbone's own template where it has one: it explains the whole value."""
    if isinstance(backbone, AbstractBackbone):
        return backbone.template(x, directions)
    return gradient(backbone, x, directions, kind="plain")


_WAYS: Final[dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]] = {
    "gradient": partial(gradient, kind="plain"),
    "gates held": held_gradient,
    "pullback": gradient,
}
"""Ways to send a direction back to the input."""


def first_filters(backbone: nn.Module) -> npt.NDArray[np.float32] | None:
    """Kernels of the first convolution, shape (filter, channel, height, width); None where there is none to see."""
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            kernels = layer.weight.detach().float().cpu().numpy()
            return kernels if kernels.shape[1] in {1, 3} and kernels.shape[2] > 1 else None
    return None


def _filter_rows(kernels: npt.NDArray[np.float32]) -> Grid:
    shown = _coloured(torch.from_numpy(kernels[:_FILTERS]))
    rows = [shown[i : i + 16] for i in range(0, len(shown), 16)]
    return [(f"filters {16 * i} to {16 * i + len(row) - 1}", row) for i, row in enumerate(rows)]


def _coloured(templates: Tensor) -> list[npt.NDArray[np.uint8]]:
    """Colour templates around grey, grey ones in red (for) and blue (against)."""
    arrays = templates.float().cpu().numpy()
    if arrays.shape[1] == 3:
        return [in_colour(template) for template in arrays]
    return [diverging(signed_sum(template)) for template in arrays]


def _plain(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if grey else image


def _write(path: Path, rows: Grid) -> Path:
    """One picture of all rows, words on the left, small pictures enlarged without smoothing."""
    side = _PICTURE
    width = _MARGIN + max(len(pictures) for _, pictures in rows) * (side + 4)
    sheet = Image.new("RGB", (width, len(rows) * (side + 4) + 4), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (words, pictures) in enumerate(rows):
        top = 4 + i * (side + 4)
        draw.text((6, top + side // 2), words, fill="black", font=font, anchor="lm")
        for j, pixels in enumerate(pictures):
            small = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(small, (_MARGIN + j * (side + 4), top))
    write_file(path, png(np.asarray(sheet)))
    return path
