"""Continual learning and clustering that never forgets and can explain itself.

Names are imported when first used, so that ``slots --help`` and ``slots doctor`` do without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slots.asking import Inquiry as Inquiry
    from slots.closing import ClosingConfig as ClosingConfig
    from slots.clustering import learn_slots as learn_slots
    from slots.clusters import ClusterConfig as ClusterConfig
    from slots.clusters import SlotClusters as SlotClusters
    from slots.continual import ContinualSlots as ContinualSlots
    from slots.cover import greedy_set_cover as greedy_set_cover
    from slots.cover import refined_set_cover as refined_set_cover
    from slots.covering import class_cover as class_cover
    from slots.estimators import SlotClassifier as SlotClassifier
    from slots.estimators import SlotClusterer as SlotClusterer
    from slots.estimators import SlotOutlierDetector as SlotOutlierDetector
    from slots.hashing import IncrementalNeuralHashing as IncrementalNeuralHashing
    from slots.label_errors import LabelErrors as LabelErrors
    from slots.label_errors import find_label_errors as find_label_errors
    from slots.layerwise import fit_layers as fit_layers
    from slots.model import SlotModel as SlotModel
    from slots.ood import Novelty as Novelty
    from slots.ood import NoveltyDetector as NoveltyDetector
    from slots.patch_layers import PatchWhitening as PatchWhitening
    from slots.predictions import Answer as Answer
    from slots.predictions import Prediction as Prediction
    from slots.proposing import Proposal as Proposal
    from slots.slot_conv import SlotConv2d as SlotConv2d
    from slots.slot_graph import SlotGraph as SlotGraph
    from slots.slot_graph_config import GraphConfig as GraphConfig
    from slots.slot_graph_discovery import discover as discover
    from slots.slot_graph_learning import learn_graph as learn_graph
    from slots.train_config import TrainConfig as TrainConfig
    from slots.training import FitResult as FitResult
    from slots.training import fit as fit
    from slots.updating import UpdateConfig as UpdateConfig
    from slots.updating import UpdateReport as UpdateReport

__version__ = "0.1.0"

_HOMES = {
    "Answer": "predictions",
    "ClosingConfig": "closing",
    "ClusterConfig": "clusters",
    "ContinualSlots": "continual",
    "FitResult": "training",
    "GraphConfig": "slot_graph_config",
    "IncrementalNeuralHashing": "hashing",
    "Inquiry": "asking",
    "LabelErrors": "label_errors",
    "Novelty": "ood",
    "NoveltyDetector": "ood",
    "PatchWhitening": "patch_layers",
    "Prediction": "predictions",
    "Proposal": "proposing",
    "SlotClassifier": "estimators",
    "SlotClusterer": "estimators",
    "SlotClusters": "clusters",
    "SlotConv2d": "slot_conv",
    "SlotGraph": "slot_graph",
    "SlotModel": "model",
    "SlotOutlierDetector": "estimators",
    "TrainConfig": "train_config",
    "UpdateConfig": "updating",
    "UpdateReport": "updating",
    "class_cover": "covering",
    "discover": "slot_graph_discovery",
    "find_label_errors": "label_errors",
    "fit": "training",
    "fit_layers": "layerwise",
    "greedy_set_cover": "cover",
    "learn_graph": "slot_graph_learning",
    "learn_slots": "clustering",
    "refined_set_cover": "cover",
}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  # a list of strings all the same


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"slots.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'slots' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
