"""Feature maps that the head sits on; nothing here knows the head."""

from __future__ import annotations

from backbones.base import AbstractBackbone
from backbones.building import BACKBONES, build
from backbones.grp import detached_gates, grp_gap

__all__ = ["BACKBONES", "AbstractBackbone", "build", "detached_gates", "grp_gap"]
