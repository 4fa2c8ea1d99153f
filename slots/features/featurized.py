"""`Featurized`: a module that has a featurizer and is known by its parts' names."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.views import Views
from slots.shapes import RawInputs


class Featurized(nn.Module):
    """Passes the names of its featurizer on: preprocessing, views and backbone are read and set as its own.

    Parameters
    ----------
    featurizer : Featurizer
        From raw inputs to features. In ``state_dict`` its weights are named ``backbone.*``.
    """

    def __init__(self, featurizer: Featurizer) -> None:
        super().__init__()
        self.featurizer = featurizer
        self.register_state_dict_post_hook(_name_backbone)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_find_backbone)  # type: ignore[no-untyped-call]

    def __setattr__(self, name: str, value: Any) -> None:
        # A module would be registered under its own name, past the property.
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def preprocessing(self) -> Preprocessing:
        """Checks raw inputs and scales them."""
        return self.featurizer.preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        self.featurizer.preprocessing = value

    @property
    def views(self) -> Views:
        """Views matched beside the input itself."""
        return self.featurizer.views

    @views.setter
    def views(self, value: Views) -> None:
        self.featurizer.views = value

    @property
    def backbone(self) -> nn.Module:
        """From scaled inputs to features; an identity where the inputs are the features."""
        return self.featurizer.backbone

    @backbone.setter
    def backbone(self, value: nn.Module) -> None:
        self.featurizer.backbone = value

    @property
    def half_precision(self) -> bool:
        """Whether the network runs in bfloat16 where the device has instructions for it. Not saved with the model.

        Features then differ in the third digit from those that the slots were learned from; what is decided of them is
        as exact as ever. Training, and models without a network, are as they were.
        """
        return self.featurizer.half_precision

    @half_precision.setter
    def half_precision(self, value: bool) -> None:
        self.featurizer.half_precision = value

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
        return self.featurizer.features(x)

    def featurize(self, views: Tensor) -> Float[Tensor, "example view feature"]:
        """Features of inputs that are already scaled and viewed, shape (example, view, ...)."""
        return self.featurizer.featurize(views)


def _name_backbone(_model: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Outside, the backbone's weights are ``backbone.*``; checkpoints of fits hold them so."""
    _rename(state, f"{prefix}featurizer.backbone.", f"{prefix}backbone.")


def _find_backbone(_model: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """The way back of `_name_backbone`."""
    _rename(state, f"{prefix}backbone.", f"{prefix}featurizer.backbone.")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)
