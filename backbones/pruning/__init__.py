"""Which neurons matter, and networks without the others."""

from __future__ import annotations

from backbones.pruning.ablation import running_statistics as running_statistics
from backbones.pruning.adjacent_layers import surroundings as surroundings
from backbones.pruning.antitraining import AntitrainingConfig as AntitrainingConfig
from backbones.pruning.antitraining import antitrain as antitrain
from backbones.pruning.antitraining import find_core as find_core
from backbones.pruning.antitraining import train as train
from backbones.pruning.compression import compress as compress
