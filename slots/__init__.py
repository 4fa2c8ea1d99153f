"""Continual learning and clustering that never forgets and can explain itself.

Names are imported when first used, so that ``slots --help`` and ``slots doctor`` do without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slots.client import Client as Client
    from slots.closing import ClosingConfig as ClosingConfig
    from slots.clustering import ClusterConfig as ClusterConfig
    from slots.clustering import SlotClusters as SlotClusters
    from slots.clustering import learn_slots as learn_slots
    from slots.continual import ContinualSlots as ContinualSlots
    from slots.cover import class_cover as class_cover
    from slots.cover import greedy_set_cover as greedy_set_cover
    from slots.cover import refined_set_cover as refined_set_cover
    from slots.estimators import SlotClassifier as SlotClassifier
    from slots.estimators import SlotClusterer as SlotClusterer
    from slots.estimators import SlotOutlierDetector as SlotOutlierDetector
    from slots.graph import GraphConfig as GraphConfig
    from slots.graph import SlotGraph as SlotGraph
    from slots.graph import discover as discover
    from slots.graph import learn_graph as learn_graph
    from slots.head import Answer as Answer
    from slots.head import IncrementalNeuralHashing as IncrementalNeuralHashing
    from slots.head import Prediction as Prediction
    from slots.label_errors import LabelErrors as LabelErrors
    from slots.label_errors import find_label_errors as find_label_errors
    from slots.layers import PatchWhitening as PatchWhitening
    from slots.layers import SlotConv2d as SlotConv2d
    from slots.layers import fit_layers as fit_layers
    from slots.model import SlotModel as SlotModel
    from slots.novelty import Novelty as Novelty
    from slots.novelty import NoveltyDetector as NoveltyDetector
    from slots.robust import Certificate as Certificate
    from slots.robust import LinfDistanceConfig as LinfDistanceConfig
    from slots.robust import LinfDistanceSlots as LinfDistanceSlots
    from slots.robust import RobustConfig as RobustConfig
    from slots.robust import certified_answers as certified_answers
    from slots.robust import certify as certify
    from slots.robust import fit_linf_distance as fit_linf_distance
    from slots.robust import predict_certified as predict_certified
    from slots.training import AutoConfig as AutoConfig
    from slots.training import FitResult as FitResult
    from slots.training import TrainConfig as TrainConfig
    from slots.training import fit as fit
    from slots.update import Inquiry as Inquiry
    from slots.update import Proposal as Proposal
    from slots.update import UpdateConfig as UpdateConfig
    from slots.update import UpdateReport as UpdateReport

__version__ = "0.1.0"

_HOMES = {
    "Answer": "head",
    "AutoConfig": "training",
    "Certificate": "robust",
    "Client": "client",
    "ClosingConfig": "closing",
    "ClusterConfig": "clustering",
    "ContinualSlots": "continual",
    "FitResult": "training",
    "GraphConfig": "graph",
    "IncrementalNeuralHashing": "head",
    "Inquiry": "update",
    "LabelErrors": "label_errors",
    "LinfDistanceConfig": "robust",
    "LinfDistanceSlots": "robust",
    "Novelty": "novelty",
    "NoveltyDetector": "novelty",
    "PatchWhitening": "layers",
    "Prediction": "head",
    "Proposal": "update",
    "RobustConfig": "robust",
    "SlotClassifier": "estimators",
    "SlotClusterer": "estimators",
    "SlotClusters": "clustering",
    "SlotConv2d": "layers",
    "SlotGraph": "graph",
    "SlotModel": "model",
    "SlotOutlierDetector": "estimators",
    "TrainConfig": "training",
    "UpdateConfig": "update",
    "UpdateReport": "update",
    "certified_answers": "robust",
    "certify": "robust",
    "class_cover": "cover",
    "discover": "graph",
    "find_label_errors": "label_errors",
    "fit": "training",
    "fit_layers": "layers",
    "fit_linf_distance": "robust",
    "greedy_set_cover": "cover",
    "learn_graph": "graph",
    "learn_slots": "clustering",
    "predict_certified": "robust",
    "refined_set_cover": "cover",
}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  # a list of strings all the same


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"slots.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'slots' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
