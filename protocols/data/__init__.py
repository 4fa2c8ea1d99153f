"""Data sets: loading, downloads, images.

Names are imported when first used: this folder must load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocols.data.arrays import load_archive as load_archive
    from protocols.data.dataset import Dataset as Dataset
    from protocols.data.dataset import check_sum as check_sum
    from protocols.data.dataset import only_classes as only_classes
    from protocols.data.dataset import undivided as undivided
    from protocols.data.images import load_images as load_images
    from protocols.data.loading import NAMES as NAMES
    from protocols.data.loading import default_data_dir as default_data_dir
    from protocols.data.loading import load_data as load_data

_HOMES = {
    "Dataset": "dataset",
    "NAMES": "loading",
    "check_sum": "dataset",
    "default_data_dir": "loading",
    "load_archive": "arrays",
    "load_data": "loading",
    "load_images": "images",
    "only_classes": "dataset",
    "undivided": "dataset",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  # a list of strings all the same


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"protocols.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'protocols.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
