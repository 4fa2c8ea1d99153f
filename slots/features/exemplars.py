"""The examples that slots remember: which they are, their features and their small pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.similarities import normalize
from slots.rounding import full_precision
from slots.shapes import Ids, RawInputs

THUMBNAIL = 64
"""Longest side of a remembered image, pixels; larger ones are averaged down."""

EXCERPT = 300
"""Length of a remembered text, characters; longer ones are cut off."""


def nearest_members(
    closeness: Float[Tensor, " example"], owner: Int[Tensor, " example"], n_slots: int, *, count: int
) -> Int[Tensor, "slot exemplar"]:
    """The few examples nearest to each slot among those that it owns.

    Parameters
    ----------
    closeness : float tensor of shape (example,)
        Score of each example with its owner; higher = nearer.
    owner : int64 tensor of shape (example,)
        The slot that owns each example; -1 for none.
    n_slots : int
        Number of slots.
    count : int
        Most examples of a slot (count, >= 1).

    Returns
    -------
    int64 tensor of shape (slot, exemplar)
        Places of the examples, the nearest first, equally near ones in their order; -1 pads.
    """
    members = torch.full((n_slots, count), -1, dtype=torch.long, device=closeness.device)
    rows = (owner >= 0).nonzero()[:, 0]
    order = closeness[rows].argsort(descending=True, stable=True)
    order = order[owner[rows][order].argsort(stable=True)]
    rows, slots = rows[order], owner[rows][order]
    counts = torch.bincount(slots, minlength=n_slots)
    rank = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[slots]
    first = rank < count
    members[slots[first], rank[first]] = rows[first]
    return members


@torch.no_grad()
def support_features(source: FeatureSource, centres: Tensor, exemplars: Tensor) -> Tensor:
    """Unit features of remembered examples, each by its view nearest the slot's centre.

    Parameters
    ----------
    source : FeatureSource
        The data that ``exemplars`` counts in.
    centres : float tensor of shape (slot, feature)
        The slots' centres.
    exemplars : int64 tensor of shape (slot, exemplar)
        Ids; -1 for none.

    Returns
    -------
    float16 tensor of shape (slot, exemplar, feature)
        On the CPU; zero rows where there is no example. Half precision is 5e-4 of a component: enough to refine new
        slots on, and these rounded vectors are what "remembered" means.
    """
    kept = torch.zeros(*exemplars.shape, centres.shape[1], dtype=torch.float16)
    slot, place = (exemplars >= 0).nonzero(as_tuple=True)
    ids = exemplars[slot, place].cpu().numpy()
    for rows in source.blocks(len(ids)):
        unit = normalize(source(ids[rows]).float())
        with full_precision():
            nearest = torch.einsum("evf,ef->ev", unit, centres[slot[rows]]).argmax(1)
        best = unit[torch.arange(len(unit), device=unit.device), nearest]
        kept[slot[rows].cpu(), place[rows].cpu()] = best.half().cpu()
    return kept


def thumbnails(x: RawInputs, exemplars: Ids) -> npt.NDArray[Any]:
    """What is kept to look at of remembered examples.

    Parameters
    ----------
    x : array of shape (example, ...)
        uint8 images or strings.
    exemplars : int64 array of shape (slot, exemplar)
        Places in ``x``, -1 for none.

    Returns
    -------
    uint8 array of shape (slot, exemplar, height, width, channel), or strings of shape (slot, exemplar)
        Images of at most 64 pixels a side, black where there is none; or the first 300 characters of texts, empty where
        there is none.
    """
    if x.ndim == 1:
        return _excerpts(x, exemplars)
    images = torch.as_tensor(np.asarray(x[np.maximum(exemplars, 0).ravel()]))
    images = images[..., None] if images.ndim == 3 else images
    images = torch.where(
        torch.from_numpy(exemplars.ravel() >= 0)[:, None, None, None], images, torch.zeros_like(images)
    )
    size = thumbnail_size(images.shape[1], images.shape[2])
    if size != tuple(images.shape[1:3]):
        planes = images.permute(0, 3, 1, 2).float()
        planes = torch.nn.functional.interpolate(planes, size=size, mode="area")
        images = planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return images.reshape(*exemplars.shape, *images.shape[1:]).contiguous().numpy()


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of what is kept of an image of this size.

    Parameters
    ----------
    height, width : int
        Of the image, pixels.

    Returns
    -------
    tuple of int
        The same where no side is longer than `THUMBNAIL`.

    Examples
    --------
    >>> thumbnail_size(28, 28), thumbnail_size(256, 128)
    ((28, 28), (64, 32))
    """
    longest = max(height, width)
    if longest <= THUMBNAIL:
        return height, width
    return max(1, round(height * THUMBNAIL / longest)), max(1, round(width * THUMBNAIL / longest))


def _excerpts(x: RawInputs, exemplars: Ids) -> npt.NDArray[Any]:
    kept = np.empty(exemplars.shape, dtype=object)
    for place, example in np.ndenumerate(exemplars):
        text = str(x[int(example)]) if example >= 0 else ""
        kept[place] = text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
    return kept
