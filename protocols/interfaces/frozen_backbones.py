"""Backbones that nobody trains here, from their names: what a transformer of scikit-learn can hold as a parameter."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import backbones
from backbones.nets.pretrained import published_input
from protocols.recipes.building import load_model, read_encoder
from protocols.recipes.weights import list_trained, load_trained
from slots.errors import UsageError
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.views import parse_views

Taken = Literal["rows", "images", "text", "any"]
_HEADER = "slots.json"  # what every model folder has


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone by its name, its weights and its options; `SlotEncoder` says what they may be.

    Parameters
    ----------
    named : str or nn.Module
        ``auto``, ``none``, a name, a model folder, or a module.
    weights : str, optional
        A file, ``default``, or the data set that the project's own weights were trained on.
    options : mapping
        Of the backbone.
    """

    named: str | nn.Module
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes(self) -> Taken:
        """What kind of input it is for; ``any`` where only the inputs, or the model's folder, tell."""
        if isinstance(self.named, nn.Module):
            return "images"
        if backbones.is_text_name(self.named):
            return "text"
        if self.named == "auto" or self._is_model:
            return "any"
        return "rows" if self.named == "none" else "images"

    @property
    def _is_model(self) -> bool:
        return isinstance(self.named, str) and (Path(self.named) / _HEADER).is_file()

    def of_model(self, device: str) -> Featurizer | None:
        """The featurizer of the model whose folder was named; None where none was."""
        return load_model(str(self.named), device=device).featurizer if self._is_model else None

    def cut(self) -> tuple[tuple[int, int] | None, float | None]:
        """Size, and share of the shorter side, that pictures are cut to: of networks of others as published."""
        if not isinstance(self.named, str) or not backbones.is_network_name(self.named):
            return None, None
        published = published_input(self.named)
        side = int(self.options.get("size") or published.size)
        return (side, side), published.crop

    def featurizer(self, preprocessing: Preprocessing, device: str) -> Featurizer:
        """Build it for inputs of a form.

        Parameters
        ----------
        preprocessing : Preprocessing
            Kind and shape of the inputs.
        device : str
            Where it runs.

        Raises
        ------
        UsageError
            If it is unknown, lacks its weights, or is not for such inputs.
        """
        try:
            body = self._body(preprocessing).requires_grad_(False).eval().to(device)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(str(error)) from error
        length = preprocessing.shape[0] if preprocessing.kind == "features" else getattr(body, "feature_dim", None)
        if length is None:
            with torch.no_grad():
                length = body(torch.zeros(1, *preprocessing.shape, device=device)).shape[-1]
        return Featurizer(preprocessing, parse_views("none"), body, feature_dim=int(length), device=device)

    def _body(self, preprocessing: Preprocessing) -> nn.Module:
        named, kind = self.named, preprocessing.kind
        if isinstance(named, nn.Module):
            return copy.deepcopy(named)  # so that neither its mode nor its device changes for the caller
        if kind != "images":
            if self.weights is not None or self.options:
                raise UsageError(f"`weights` and `options` must be left out for {kind}. Remove them.")
            return read_encoder(named) if kind == "text" else nn.Identity()
        shape = (preprocessing.shape[0], preprocessing.shape[1], preprocessing.shape[2])
        name, options = ("pixels" if named == "auto" else named), dict(self.options)
        if backbones.is_network_name(name):
            return self._network(name, shape, options)
        if self.weights is not None:
            return load_trained(name, self.weights).build(shape)
        body = backbones.build(name, input_shape=shape, **options)
        if any(True for _ in body.parameters()):
            raise UsageError(
                f"`weights` must be given for {name}, got none: untrained features say little. Those of the project "
                f"are {', '.join(list_trained())}; or name the folder of a fitted model as backbone."
            )
        return body

    def _network(self, name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
        """A network of others; pictures of another size than it was made for are resized."""
        if self.weights is None:
            raise UsageError(f"`weights` must be given for {name}, got none. Pass a file, or default.")
        if name.startswith(("torchvision:", "timm:")) and shape[1:] != (side := published_input(name).size,) * 2:
            options.setdefault("size", side)
        asked = {"network": name, "weights": self.weights, **options}
        return backbones.build("pretrained", input_shape=shape, **asked)
