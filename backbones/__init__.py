"""Feature maps that the head sits on; nothing here knows the head."""

from __future__ import annotations

from backbones.ascent import Ascent, accentuate, ascend, counterfactual, gradient
from backbones.base import AbstractBackbone
from backbones.building import BACKBONES, build
from backbones.grp import detached_gates, grp_gap
from backbones.pretrained import is_network_name
from backbones.pullback import pullback

__all__ = [
    "BACKBONES",
    "AbstractBackbone",
    "Ascent",
    "accentuate",
    "ascend",
    "build",
    "counterfactual",
    "detached_gates",
    "gradient",
    "grp_gap",
    "is_network_name",
    "pullback",
]
