"""`positive`: convolutions whose weights are not negative; signs live in the batch normalisations between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_widths
from backbones.layers.l2_conv import L2Conv2d
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.layers.whitening_stem import WhiteningStem
from backbones.nets.first_layers import first_layer, input_layer

POOLINGS: Final = ("max", "mean")
ACTIVATIONS: Final = ("relu", "silu")
SIGNS: Final = ("both", "plus")
_SHARE: Final = 0.1  # of the weights that start above 0 where signs are both
_WIDTHS: Final = (64, 128, 256)


class Positive(AbstractBackbone):
    """Bias-free convolutions, each with a batch normalisation; all but the first with weights of at least 0.

    The first takes 5x5 windows of the input, the others 3x3 windows; before each but the first a max pooling halves the
    picture. A filter of the upper layers can only add up what lies below, never cancel it, which keeps the gradients of
    its units close to the parts of the input. What a unit should not see it can only be told by a normalisation with a
    negative scale, which turns a sum into its lack.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    widths : list of int, optional
        Channels of each convolution; 2 or 3 of them are best. Default: [64, 128, 256], cut to what the shorter side
        allows: each after the first halves it.
    pooling : {"max", "mean"}
        How the last maps become features: their largest value, or their mean.
    activation : {"relu", "silu"}
        ``"relu"``: ReLU of the batch normalisation. ``"silu"``: `SiLUBatchNorm`, whose value has no offset.
    first : {"convolution", "l2", "scaled", "perspective", "projected", "branches", "negative", "whitening"}
        The first layer, see `backbones.nets.first_layers`. ``"l2"`` starts from patches of the training inputs.
        ``"whitening"``: a `WhiteningStem` of 2x2 pixels, looked up in them, with ReLU; all ``widths`` are then those of
        convolutions whose weights are not negative, each followed by the max pooling.
    signs : {"both", "plus"}
        Signs of the normalisations' scales at the start of the training. ``"both"``: every second one is -1, and only
        one in ten weights of a filter starts above 0. ``"plus"``: all are 1, and hardly any ever turns; nets learn much
        less of photographs then.
    inputs : {"none", "batch", "percentile", "whitening"}
        Normalisation of the input.

    Notes
    -----
    A batch normalisation in evaluation is ``scale * x + offset``, and the offset is a part of the value that the input
    does not explain. So only ``activation="silu"``, where mean and offset decide the gate alone, claims the Gradient
    Representation Property; and not with distances (``first="l2"``) or a normalised input, which is centred.

    The constrained weights start uniform in ``[0, 2 / fan_in]``, or with ``signs="both"`` one in ten of them in
    ``[0, 20 / fan_in]``; `constrain_` sets negative ones to exactly 0. The stage above should be a softmax pooling over
    each class's slots.
    """

    name: ClassVar[str] = "positive"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        widths: Sequence[int] | None = None,
        pooling: str = "max",
        activation: str = "relu",
        first: str = "convolution",
        inputs: str = "none",
        signs: str = "both",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        check_choice("pooling", pooling, POOLINGS)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("signs", signs, SIGNS)
        side = min(height, width)
        side = (side - 1) // 2 if first == "whitening" else side  # of the maps that the first activation is given
        chosen = check_widths(_WIDTHS[: side.bit_length()] if widths is None else widths, side=side)
        kinds = {"pooling": pooling, "activation": activation, "first": first, "inputs": inputs, "signs": signs}
        claims = activation == "silu" and first != "l2" and inputs == "none"
        super().__init__(input_shape, feature_dim=chosen[-1], options={"widths": chosen, **kinds}, claims_grp=claims)
        self.inputs = input_layer(inputs, channels)
        through = chosen
        if first == "whitening":
            stem = WhiteningStem(channels)
            self.first: nn.Module = stem
            through = [stem.out_channels, *chosen]
        else:
            self.first = first_layer(first, channels, chosen[0])
        self.positive = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairwise(through)
        )
        self.activations = nn.ModuleList(_activation(activation, width) for width in chosen)
        self.pool = nn.MaxPool2d(2)
        self._start(signs)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Largest value or mean over all places of the last maps."""
        maps: Tensor = self.first(self.inputs(x).contiguous(memory_format=torch.channels_last))
        if isinstance(self.first, WhiteningStem):
            maps = functional.relu(maps)
            for convolution, activation in zip(self.positive, self.activations, strict=True):
                maps = activation(self.pool(convolution(maps)))
        else:
            maps = self.activations[0](maps)
            for convolution, activation in zip(self.positive, self.activations[1:], strict=True):
                maps = activation(convolution(self.pool(maps)))
        return maps.amax((2, 3)) if self.options["pooling"] == "max" else maps.mean((2, 3))

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters of ``first="l2"``, borders included, or ``"whitening"`` from patches of training inputs."""
        if isinstance(self.first, (L2Conv2d, WhiteningStem)):
            training = self.inputs.training
            seen = self.inputs.train()(x)  # by the batch's own statistics, as the training will
            self.inputs.train(training)
            self.first.learn_(functional.pad(seen, (2, 2, 2, 2)) if isinstance(self.first, L2Conv2d) else seen)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Set the negative weights of all convolutions but the first to 0."""
        for weight in self.positive.parameters():
            weight.clamp_min_(0.0)

    @torch.no_grad()
    def _start(self, signs: str) -> None:
        """First weights of the constrained convolutions, and first scales of the normalisations."""
        for weight in self.positive.parameters():
            most = 2.0 / weight[0].numel()
            nn.init.uniform_(weight, 0.0, most)
            if signs == "both":
                few = weight * (torch.rand_like(weight) < _SHARE) / _SHARE
                weight.copy_(torch.where(few.amax((1, 2, 3), keepdim=True) > 0, few, weight))  # none without any
        if signs == "both":
            for norm in self.activations.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.weight[1::2] = -1.0


def _activation(kind: str, channels: int) -> nn.Module:
    if kind == "silu":
        return SiLUBatchNorm(channels)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
