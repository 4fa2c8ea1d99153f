"""What every backbone is: features of a batch of inputs, and the picture of a direction in feature space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.grp import detached_gates


class AbstractBackbone(nn.Module, ABC):
    """A map from inputs to features, rebuilt from its name, input shape and options.

    Subclasses set ``name``, call ``super().__init__`` with what describes them, and fill in `features`.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    feature_dim : int
        Length of a feature vector.
    options : dict
        The options in effect, defaults included, as JSON values: ``build(name, input_shape=input_shape, **options)``
        makes the same architecture.
    claims_grp : bool
        Whether, in evaluation and with gates held fixed, ``<template(x, d), x> = <d, f(x)>`` for every input and
        direction (`backbones.grp`).

    Attributes
    ----------
    name : str
        The name in `backbones.build`.
    """

    name: ClassVar[str]

    def __init__(
        self, input_shape: tuple[int, int, int], *, feature_dim: int, options: dict[str, Any], claims_grp: bool
    ) -> None:
        super().__init__()
        self.input_shape = check_input_shape(input_shape)
        self.feature_dim = feature_dim
        self.options = options
        self.claims_grp = claims_grp

    @abstractmethod
    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Features of a batch whose shape has been checked."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Map a batch of inputs to features.

        Parameters
        ----------
        x : float tensor of shape (batch, channel, height, width)
            Inputs, already scaled. The batch may be empty in evaluation.

        Returns
        -------
        float tensor of shape (batch, feature)

        Raises
        ------
        ValueError
            If the inputs are not of the backbone's shape.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"`x` must have shape (batch, {expected}), got {tuple(x.shape)}. "
                f"The backbone was built for other inputs; build {self.name} with their input_shape."
            )
        return self.features(x)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Put the weights back where they must be; call it after each optimiser step. Default: nothing to do."""

    def schedule_(self, progress: float) -> None:
        """Hear how far the training is, for layers that change with it; call it before each step. Default: nothing.

        Parameters
        ----------
        progress : float
            Share of the training that is done, in [0, 1].
        """

    @property
    def has_schedule(self) -> bool:
        """Whether the backbone has a `schedule_` of its own."""
        return type(self).schedule_ is not AbstractBackbone.schedule_

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Look at some training inputs before the training, for layers that start from data. Default: nothing to do.

        Parameters
        ----------
        x : float tensor of shape (batch, channel, height, width)
            Scaled as the training inputs will be.
        """

    def template(
        self, x: Float[Tensor, "batch channel height width"], direction: Float[Tensor, "*batch feature"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Draw what in an input makes it point in a direction: the gradient of ``<direction, f(x)>``.

        Where the backbone claims the Gradient Representation Property the picture explains the whole value:
        its inner product with the input is ``<direction, f(x)>``. (The gradient of the cosine would not: a cosine
        does not change when the input is scaled, so its inner product with the input is zero.)

        Parameters
        ----------
        x : float tensor of shape (batch, channel, height, width)
            Inputs to explain, as `forward` takes them.
        direction : float tensor of shape (feature,) or (batch, feature)
            For example a slot's weight; one for all inputs, or one for each.

        Returns
        -------
        float tensor of shape (batch, channel, height, width)
            Computed in evaluation mode with gates held fixed (`detached_gates`); carries no gradient. The parameters'
            gradients and the module's mode stay as they were.

        Raises
        ------
        ValueError
            If the inputs or the direction have the wrong shape.
        """
        if direction.shape not in {(self.feature_dim,), (len(x), self.feature_dim)}:
            raise ValueError(
                f"`direction` must have shape ({self.feature_dim},) or ({len(x)}, {self.feature_dim}), "
                f"got {tuple(direction.shape)}. Pass one direction for all inputs, or one for each."
            )
        with evaluating(self), torch.inference_mode(False), torch.enable_grad(), detached_gates(self):
            leaf = x.detach().clone().requires_grad_()
            total = (self(leaf) * direction.detach().clone()).sum()
            return torch.autograd.grad(total, leaf)[0]


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Let the block change the mode of any module; each has its own again afterwards, also after an exception."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; each module's own mode afterwards."""
    with modes_kept(model):
        model.eval()
        yield


def check_input_shape(input_shape: Any) -> tuple[int, int, int]:
    """The shape as a tuple of three positive ints.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    sides = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if len(sides) != 3 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise ValueError(
            f"`input_shape` must be three positive integers (channel, height, width), got {input_shape!r}. "
            "A grey 28x28 picture has input_shape=(1, 28, 28)."
        )
    return sides
