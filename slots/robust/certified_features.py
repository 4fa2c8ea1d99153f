"""Behind which features a certificate holds: inputs themselves, mirrored ones, and nets that make no change longer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor, nn

from slots.errors import UsageError
from slots.features.views import Views
from slots.head.caps import SlotCaps
from slots.model.slot_model import SlotModel
from slots.robust.config import Norm
from slots.robust.nearest_slot import LabelledSlots

_FLOAT32 = 1e-5  # error of a net's features over the length of its input; a tenth of it is seen
Radii = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """How far the features of some inputs move at most, when the inputs do.

    Parameters
    ----------
    growth : float
        Largest length of a change of features over that of the input's; 1 where features are the inputs themselves.
    lengths : float64 array of shape (example,)
        Of the inputs, where float32 computes their features; zeros where the inputs are the features.
    entries : int
        Numbers in an input: a change of which the largest is ``e`` is no longer than ``e sqrt(entries)``.
    """

    growth: float
    lengths: Radii
    entries: int

    def of_inputs(self, radii: Radii, norm: Norm) -> Radii:
        """Radii around inputs from Euclidean radii around their features.

        With a constant ``L`` and features that are off by at most ``u |x|`` the computed ones of ``x`` and ``x'`` are
        no farther apart than ``L d + u (|x| + |x'|) <= (L + u) d + 2 u |x|``, where ``d`` is the distance of the two.
        """
        found = np.maximum(radii - 2 * _FLOAT32 * self.lengths, 0.0) / (self.growth + _FLOAT32)
        return found if norm == "l2" else found / math.sqrt(self.entries)


def keeps_inputs(model: SlotModel) -> bool:
    """Whether a model's features are its inputs."""
    return isinstance(model.backbone, nn.Identity) or bool(getattr(model.backbone, "keeps_inputs", False))


def check_certifiable(model: SlotModel) -> None:
    """Refuse models behind whose features no radius of the input holds.

    Raises
    ------
    UsageError
        If the features are neither the inputs nor of a backbone that tells its Lipschitz constant, or views have norms
        of their own.
    """
    told = hasattr(type(model.backbone), "lipschitz") or "lipschitz" in vars(model.backbone)  # without computing it
    known = keeps_inputs(model) or told
    if not known or model.featurizer.whitening is not None or model.preprocessing.kind == "text":
        raise UsageError(
            "`model` must have features that are the inputs themselves to be certified, or the backbone lipschitz, got "
            "another backbone or a whitening. Fit one with the backbone pixels, or on feature rows: slots fit --robust "
            "l2:2.5."
        )
    mirrored = keeps_inputs(model) and model.preprocessing.kind == "images"
    if (model.views.n_views > 1 and not (mirrored and _orders(model) is not None)) or model.preprocessing.mean:
        raise UsageError(
            "`model` must have one view and unshifted pixels to be certified, or on pixels the view flip, got views or "
            "a standardization: each view has a norm of its own. Fit it with views none, as slots fit --robust does."
        )


def _orders(model: SlotModel) -> Int[Tensor, "view feature"] | None:
    return view_orders(model.views, model.preprocessing.shape)


def view_orders(views: Views, shape: tuple[int, ...]) -> Int[Tensor, "view feature"] | None:
    """Of views that only change the order of pixels: which pixel is where; None where one does more than that.

    Parameters
    ----------
    views : Views
        Any.
    shape : tuple of three int
        Channels, height and width.

    Returns
    -------
    int64 tensor of shape (view, feature), or None
        ``x.flatten()[found[v]]`` is view ``v`` of an image, which so has its length.
    """
    n = math.prod(shape)
    numbers = torch.arange(1, n + 1, dtype=torch.float64).view(1, *shape)
    chance = torch.rand(numbers.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen, other = (views(it)[0].flatten(1) for it in (numbers, chance))
    found = (seen - 1).round().long()
    if not torch.equal(found.sort(1).values, torch.arange(n).expand(len(found), n)):
        return None
    return found if torch.equal(other, chance.flatten()[found]) else None


def virtual_caps(caps: SlotCaps, orders: Int[Tensor, "view feature"]) -> SlotCaps:
    """Slots as they are seen by the image itself: one for each view and slot, slots of one view together.

    ``<x[order], w> = <x, w'>`` with ``w'[order] = w``, and the image has the length of its view: whichever cap a view
    lies in, the image lies in the virtual one.
    """
    n = len(orders)
    return replace(
        caps,
        weights=_unordered(caps.weights, orders),
        centres=_unordered(caps.centres, orders),
        precision=caps.precision.repeat(n),
        support=caps.support.repeat(n),
        labels=caps.labels.repeat(n),
        generations=caps.generations.repeat(n),
        pooled=caps.pooled.repeat(n),
        kept=None,
    )


def virtual_slots(slots: LabelledSlots, orders: Int[Tensor, "view feature"]) -> LabelledSlots:
    """The same of slots whose pooled scores answer; a pool still holds each slot once, with its best view."""
    weights = _unordered(torch.from_numpy(slots.weights), orders).numpy()
    return LabelledSlots(np.ascontiguousarray(weights), np.tile(slots.labels, len(orders)), slots.beta, len(orders))


def _unordered(vectors: Tensor, orders: Int[Tensor, "view feature"]) -> Tensor:
    found = vectors.new_zeros(len(orders), *vectors.shape)
    for view, order in enumerate(orders.to(vectors.device)):
        found[view][:, order] = vectors
    return found.flatten(0, 1)


def reach_of(model: SlotModel, inputs: Tensor) -> Reach:
    """How far a model's features move, for scaled inputs of shape (example, ...)."""
    rows = inputs.double().flatten(1)
    if keeps_inputs(model):
        return Reach(1.0, np.zeros(len(rows)), rows.shape[1])
    constant: Any = model.backbone.lipschitz
    return Reach(float(constant), rows.norm(dim=1).cpu().numpy(), rows.shape[1])
