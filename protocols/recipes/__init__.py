"""What to fit and how: backbones, options and trained weights.

Names are imported when first used: this folder must load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocols.recipes.building import build_backbone as build_backbone
    from protocols.recipes.building import load_model as load_model
    from protocols.recipes.building import pick_device as pick_device
    from protocols.recipes.planning import parse_options as parse_options
    from protocols.recipes.planning import plan as plan
    from protocols.recipes.recipes import GPU_RECIPES as GPU_RECIPES
    from protocols.recipes.recipes import RECIPES as RECIPES
    from protocols.recipes.recipes import Recipe as Recipe
    from protocols.recipes.recipes import find_recipe as find_recipe
    from protocols.recipes.recipes import from_trained as from_trained

_HOMES = {
    "GPU_RECIPES": "recipes",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "build_backbone": "building",
    "find_recipe": "recipes",
    "from_trained": "recipes",
    "load_model": "building",
    "parse_options": "planning",
    "pick_device": "building",
    "plan": "planning",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  # a list of strings all the same


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"protocols.recipes.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'protocols.recipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
