"""`Featurizer`: from raw inputs to the features of their views, by preprocessing, views and backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slots.features.preprocessing import Preprocessing
from slots.features.views import Views
from slots.features.whitening import Whitening
from slots.rounding import multiplies_bfloat16
from slots.shapes import RawInputs

_CPU_INPUTS = 128
_BLOCK_TEXTS = 2048
_BLOCK_FLOATS = 1 << 24  # numbers in the largest intermediate of a block: 64 MB in float32
_BLOCK_FLOATS_OF_VIEWS = 1 << 22  # on a CPU: what is made of several views then stays in the cache


def settle(module: nn.Module) -> None:
    """Put a module into evaluation mode; a look whether it is already costs a fifth of doing it again."""
    if _trains(module):
        module.eval()


def _trains(module: nn.Module) -> bool:
    return module.training or any(_trains(part) for part in module.children())


class Featurizer(nn.Module):
    """All of a model but its slots: what turns raw inputs into features.

    Parameters
    ----------
    preprocessing : Preprocessing
        Checks raw inputs and scales them.
    views : Views
        Of images; features have one view, themselves.
    backbone : nn.Module
        From (batch, channel, height, width), (batch, feature), or strings, to (batch, feature).
    feature_dim : int
        Number of features that come out at the end.
    whitening : Whitening, optional
        Applied to what the backbone gives. Default: none.
    device : torch device, default "cpu"
        Where the backbone lies; ``to`` moves both.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.features import parse_views
    >>> halves = Featurizer(Preprocessing("images", (1, 2, 4)), parse_views("flip"), nn.Flatten(), feature_dim=8)
    >>> tuple(halves.features(np.zeros((3, 2, 4), np.uint8)).shape)
    (3, 2, 8)
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        views: Views,
        backbone: nn.Module,
        *,
        feature_dim: int,
        whitening: Whitening | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.preprocessing, self.views, self.backbone, self.feature_dim = preprocessing, views, backbone, feature_dim
        self.whitening = whitening
        self.half_precision = False
        """Whether the network runs in bfloat16 where the device has instructions for it; training has an own option."""
        self._place: Tensor
        # Moves along where the backbone has no tensor of its own, and is not stored.
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)

    @property
    def given_dim(self) -> int:
        """Features that the backbone gives, before a whitening, which may add a constant."""
        return self.feature_dim if self.whitening is None else len(self.whitening.mean)

    @property
    def device(self) -> torch.device:
        """Where features are computed."""
        return self._place.device

    def features(self, x: RawInputs) -> Float[Tensor, "example view feature"]:
        """Raw features of every view of a block of raw inputs (not checked, gradients as the caller set them).

        Parameters
        ----------
        x : array of shape (example, ...)
            Raw inputs that were checked.

        Returns
        -------
        float tensor of shape (example, view, feature)
        """
        if self.preprocessing.kind == "text":
            return self.project(self._network(x))[:, None]
        return self.featurize(
            self.views(inputs) if (inputs := self.preprocessing(x, self.device)).ndim == 4 else inputs[:, None]
        )

    @property
    def sees_each_view_alone(self) -> bool:
        """Whether features of a view have the same bits whatever views lie beside it; a network may round otherwise."""
        several = self.views.n_views > 1 and self.whitening is None and self.preprocessing.kind == "images"
        return several and bool(getattr(self.backbone, "keeps_inputs", False))

    @torch.no_grad()
    def plain(self, x: RawInputs) -> Float[Tensor, "example feature"]:
        """Raw features of raw inputs as they are, without views (not checked).

        Parameters
        ----------
        x : array of shape (example, ...)
            Raw inputs that were checked.

        Returns
        -------
        float tensor of shape (example, feature)
        """
        return self.featurize(self.preprocessing(x, self.device)[:, None])[:, 0]

    def featurize(self, views: Tensor) -> Float[Tensor, "example view feature"]:
        """Features of inputs that are already scaled and viewed, shape (example, view, ...)."""
        inputs = views.flatten(0, 1)
        whole = views.shape[1] > 1 and getattr(self.backbone, "keeps_inputs", False)  # a copy would be all the work
        if views.device.type == "cpu" and not torch.is_grad_enabled() and not whole:
            # The maps of a small batch stay in the cache: a convolutional net is twice as fast on it.
            features = torch.cat([self._network(part) for part in inputs.split(_CPU_INPUTS)])
        else:
            features = self._network(inputs)
        features = self.project(features)
        return features.reshape(*views.shape[:2], features.shape[-1])

    def _network(self, inputs: RawInputs | Tensor) -> Float[Tensor, "example feature"]:
        """What the backbone gives, float32 where it ran in half precision."""
        if not (self.half_precision and multiplies_bfloat16(self.device)):
            return self.backbone(inputs)  # type: ignore[no-any-return]
        with torch.autocast(self.device.type, torch.bfloat16):
            found: Tensor = self.backbone(inputs)
        return found.float() if found.dtype == torch.bfloat16 else found

    def project(self, features: Float[Tensor, "example feature"]) -> Float[Tensor, "example feature"]:
        """What the head sees of the backbone's features: whitened where there is a whitening."""
        return features if self.whitening is None else self.whitening(features)

    def directions(self, weights: Float[Tensor, "slot feature"]) -> Float[Tensor, "slot feature"]:
        """Slot weights as directions in the backbone's features, for pictures of what makes a slot fire."""
        return weights if self.whitening is None else self.whitening.directions(weights)

    def blocks(self, n: int, *, columns: int = 0) -> Iterator[slice]:
        """Slices of examples whose intermediates stay near 64 MB; near 16 MB on a CPU where inputs have several views.

        Parameters
        ----------
        n : int
            Number of examples.
        columns : int, default 0
            Numbers that are computed for each view of an example beside its features, such as the number of slots.

        Yields
        ------
        slice
        """
        row = max(math.prod(self.preprocessing.shape) * 4, self.feature_dim, columns, 1)
        in_cache = self.views.n_views > 1 and self.device.type == "cpu"
        most = _BLOCK_FLOATS_OF_VIEWS if in_cache else _BLOCK_FLOATS
        step = max(1, most // (row * self.views.n_views))
        if self.preprocessing.kind == "text":
            step = min(step, _BLOCK_TEXTS)  # reading them takes long, and somebody waits for the progress
        for i in range(0, n, step):
            yield slice(i, min(n, i + step))
