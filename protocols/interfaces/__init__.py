"""The tools that people use already, a file each: scikit-learn, TensorBoard, the Hub, pytorch-ood, Avalanche, MLflow.

Names are imported when first used: each needs its tool, and nothing else here does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocols.interfaces.avalanche import SlotStrategy as SlotStrategy
    from protocols.interfaces.encoder import SlotEncoder as SlotEncoder
    from protocols.interfaces.hub import HubModel as HubModel
    from protocols.interfaces.pytorch_ood import SlotModelDetector as SlotModelDetector
    from protocols.interfaces.pytorch_ood import SlotNoveltyDetector as SlotNoveltyDetector
    from protocols.interfaces.tensorboard import TensorBoardLog as TensorBoardLog

_HOMES = {
    "HubModel": "hub",
    "SlotEncoder": "encoder",
    "SlotModelDetector": "pytorch_ood",
    "SlotNoveltyDetector": "pytorch_ood",
    "SlotStrategy": "avalanche",
    "TensorBoardLog": "tensorboard",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  # a list of strings all the same


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"protocols.interfaces.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'protocols.interfaces' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
