"""What the network of parts learns first: to know the classes by the mean of its patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.clustering.kmeans import directions
from slots.parts.backbone import check_bag_backbone
from slots.parts.network import NetworkTraining, train_network
from slots.shapes import RawInputs
from slots.training.config import TrainConfig

_SLOTS_PER_CLASS = 10
_IMAGES = 1000  # whose patches are grouped
_PATCHES = 16_000
_BATCH = 250


def train_bag(
    x: RawInputs,
    y: npt.NDArray[np.int64],
    *,
    backbone: nn.Module,
    config: TrainConfig,
    **how: Any,
) -> NetworkTraining:
    """Train the layers below the channels as a bag of patches, and let the channels begin as groups of patches.

    Parameters
    ----------
    x, y : see `train_network`
        Training examples and labels.
    backbone : BagBackbone
        ``backbones.build("parts", ...)``; its layers learn in place.
    config : TrainConfig
        Of this training; the number of slots a class and of features a slot are not taken from it.
    **how
        ``progress``, ``log``, ``stop``, ``checkpoint``, ``resume`` and ``ranks``, see `train_network`.

    Raises
    ------
    UsageError
        If the backbone has no bag of patches, and as `train_network`.

    Notes
    -----
    Slots that look for parts give a gradient to the few patches where the parts were found, and drop most channels
    before these mean anything. Under the mean of all patches (Brendel and Bethge 2019) every patch learns in every
    step. Groups of the patches' vectors (spherical k-means) are then better first channels than random ones, as in
    Coates and Ng (2012).
    """
    net = check_bag_backbone(backbone)
    bag = net.bag()
    own = replace(config, features_per_slot=0, slots_per_class=_SLOTS_PER_CLASS)
    trained = train_network(x, y, backbone=bag, config=own, **how)
    drawn = np.sort(np.random.default_rng(config.seed).permutation(trained.fitted)[:_IMAGES])
    ready = trained.model.preprocessing
    batches = [ready(x[drawn[i : i + _BATCH]], trained.model.device) for i in range(0, len(drawn), _BATCH)]
    vectors = _patch_vectors(bag, batches, config.seed)
    found = directions(vectors.cpu().numpy(), net.n_channels, seed=config.seed)
    net.begin_channels_(torch.from_numpy(found).to(vectors))
    return trained


@torch.no_grad()
def _patch_vectors(bag: nn.Module, batches: list[Tensor], seed: int) -> Tensor:
    """Unit vectors of some patches, after the mean of all was taken off: what each says that others do not."""
    maps = torch.cat([bag.maps(inputs) for inputs in batches])  # type: ignore[operator]
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2).float()
    rows = rows - rows.mean(0)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_PATCHES])
    return functional.normalize(rows[torch.from_numpy(drawn).to(rows.device)], dim=1)
