"""A model as one network whose layers have names: those of its backbone, and ``slots`` at the end."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from slots.errors import UsageError
from slots.model.slot_model import SlotModel

SLOTS = "slots"
"""The last layer: what each slot says, its cosine with the features."""


class Network(nn.Module):
    """From scaled inputs to the cosine of each slot; its units can be named, and its last ones are the slots.

    Parameters
    ----------
    model : SlotModel
        Of images or features; it is put into evaluation mode.

    Raises
    ------
    UsageError
        If the model is one of text.
    """

    def __init__(self, model: SlotModel) -> None:
        super().__init__()
        if model.preprocessing.kind == "text":
            raise UsageError("`slots explain` takes models of images or features, got one of text.")
        model.eval()
        for name, child in model.featurizer.backbone.named_children():
            self.add_module(name, child)
        self._whole = (model.featurizer.backbone, model.featurizer)  # in a tuple, so that names have no prefix
        weights = model.head.weights.detach()
        last = nn.Linear(weights.shape[1], len(weights), bias=False, device=weights.device)
        with torch.no_grad():
            last.weight.copy_(weights)
        self.add_module(SLOTS, last)

    def forward(self, x: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample slot"]:
        """Cosines of all slots."""
        backbone, featurizer = self._whole
        features = featurizer.project(backbone(x).float())
        found: Tensor = self.get_submodule(SLOTS)(functional.normalize(features, dim=1))
        return found
