"""Layers of the ExplOR family: weighted disjunctions with one choice."""

from __future__ import annotations

from backbones.explor_layers.base import Choice as Choice
from backbones.explor_layers.layers import ExplOR2d as ExplOR2d
from backbones.explor_layers.layers import ExplORConv2d as ExplORConv2d
from backbones.explor_layers.layers import ExplORLinear as ExplORLinear
from backbones.explor_layers.pooling import ExplORPool2d as ExplORPool2d
