"""Feature maps that the head sits on; nothing here knows the head."""

from __future__ import annotations

from backbones.base import AbstractBackbone
from backbones.building import BACKBONES, build
from backbones.explanations.ascent import Ascent, accentuate, ascend, counterfactual, gradient
from backbones.explanations.pullbacks import pullback
from backbones.grp import detached_gates, grp_gap
from backbones.nets.pretrained import is_network_name
from backbones.text import TextBackbone, WeightsError, is_text_name

__all__ = [
    "BACKBONES",
    "AbstractBackbone",
    "Ascent",
    "TextBackbone",
    "WeightsError",
    "accentuate",
    "ascend",
    "build",
    "counterfactual",
    "detached_gates",
    "gradient",
    "grp_gap",
    "is_network_name",
    "is_text_name",
    "pullback",
]
