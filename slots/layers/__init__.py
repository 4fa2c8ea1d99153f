"""Layers of patches learned without gradients."""

from __future__ import annotations

from slots.layers.layerwise import PooledFeatures as PooledFeatures
from slots.layers.layerwise import fit_layers as fit_layers
from slots.layers.slot_conv import SlotConv2d as SlotConv2d
from slots.layers.whitening import PatchWhitening as PatchWhitening
