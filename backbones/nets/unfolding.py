"""`unfolding`: parts of parts, chosen place by place, that fold into one filter of the input for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count, check_counts
from backbones.layers.or_layer import OrConv2d
from backbones.layers.residual import Residual
from backbones.layers.scale_norm import ScaleNorm
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.layers.whitening_stem import WhiteningStem

GATES: Final = ("relu", "max", "silu")
STEMS: Final = ("none", "whitening")
NORMS: Final = ("scale", "none")
SIGNS: Final = ("free", "nonnegative")
POOLINGS: Final = ("mean", "max", "flatten")
_WIDTH, _WIDEST = 64, 256


class Unfolding(AbstractBackbone):
    """Levels of windows: parts answer at each place, a gate chooses among them, and units add what was chosen.

    The first level is a strided convolution, whose filters are the parts. Each further level takes windows of the
    places below: unit ``m`` weights part ``k`` at position ``ij`` of its window by ``W_mijk``, and the gate says which
    parts count there. Read from the top down the net *unfolds*: the chosen parts, times their weights, add up to one
    filter ``G_m(x)`` in the space of the input, and the unit's value is ``<G_m(x), x>``, exactly; `template` draws it.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    widths : list of int, optional
        Number of filters of each level. Default: 64, doubled from level to level up to 256, until one place is left.
    windows, strides : list of int, optional
        Side of each level's windows and the distance between them (pixels of the level below). Default: windows of 4
        pixels, then of 2 places, side by side: ``strides`` equal to ``windows``. With smaller strides they overlap.
        Zeros around the picture let windows reach every pixel; they add nothing.
    stem : {"none", "whitening"}
        ``"whitening"``: before all levels stands one whose filters are not trained but looked up in the training images
        (`WhiteningStem`); it takes half of the epochs to the same accuracy. Its filters have both signs.
    stem_kernel : int
        Side of the patches of that level, which overlap (pixels, >= 1).
    residual : int or list of int
        Pairs of 3x3 levels after each level, whose sum is added to what they start from (count, >= 0).
    gate : {"relu", "max", "silu"}
        Which parts count. ``"relu"``: those with a positive value. ``"max"``: for each unit and position the one with
        the largest weighted value, an OR; it costs a pass over all products and has no matrix product. ``"silu"``:
        each to the degree of the sigmoid of its batch normalisation (`SiLUBatchNorm`): more than usual counts.
    norm : {"scale", "none"}
        Whether values are divided by their running root mean square before the gate (`ScaleNorm`); the gate
        ``"silu"`` scales by itself.
    signs : {"free", "nonnegative"}
        Of all weights: with ``"nonnegative"`` parts cannot cancel each other, and `constrain_` keeps it so. On inputs
        of at least 0 such a net has nothing for a ReLU to do: choose ``"max"`` or ``"silu"``.
    pooling : {"mean", "max", "flatten"}
        What becomes of the places that are left at the top.

    Notes
    -----
    No level has a bias and no normalisation subtracts. Gates are steps (``"relu"``, ``"max"``), whose choice does not
    change when the input is scaled, or held fixed by `template` (``"silu"``), so the Gradient Representation Property
    is exact, for overlapping windows and residual sums too: adding a value adds its filter.

    The values of the top level pass its gate too; ``"max"``, which chooses among parts, only scales them there.

    Examples
    --------
    >>> backbone = Unfolding((1, 28, 28), gate="max").eval()
    >>> backbone.options["widths"], backbone.options["windows"]
    ([64, 128, 256, 256], [4, 2, 2, 2])
    >>> x, unit = torch.rand(1, 1, 28, 28), torch.eye(256)[7]
    >>> filter_of_unit = backbone.template(x, unit)
    >>> torch.allclose((filter_of_unit * x).sum(), backbone(x)[0, 7], rtol=1e-4)
    True
    """

    name: ClassVar[str] = "unfolding"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        widths: Sequence[int] | None = None,
        windows: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        stem: str = "none",
        stem_kernel: int = 2,
        residual: int | Sequence[int] = 0,
        gate: str = "relu",
        norm: str = "scale",
        signs: str = "free",
        pooling: str = "mean",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        for name, value, choices in (
            ("stem", stem, STEMS),
            ("gate", gate, GATES),
            ("norm", norm, NORMS),
            ("signs", signs, SIGNS),
            ("pooling", pooling, POOLINGS),
        ):
            check_choice(name, value, choices)
        check_count("stem_kernel", stem_kernel)
        if stem == "whitening" and stem_kernel > min(height, width):
            raise ValueError(
                f"`stem_kernel` must be at most {min(height, width)}, the shorter side, got {stem_kernel}. Pass less."
            )
        if stem == "whitening" and signs == "nonnegative":
            raise ValueError("`stem` must be none with nonnegative signs, got whitening. Its filters have both signs.")
        sizes = _sizes(max(height, width), widths, windows, strides)
        count = len(sizes["widths"])
        pairs = check_counts("residual", [residual] * count if isinstance(residual, int) else residual, count, least=0)
        kinds = {"gate": gate, "norm": norm, "signs": signs, "pooling": pooling}
        body = _Body(channels, (height, width), gate=gate, norm=norm)
        if stem == "whitening":
            body.add_stem(stem_kernel)
        for after, window, stride, more in zip(*sizes.values(), pairs, strict=True):
            body.add_level(after, window, stride)
            for _ in range(more):
                body.add_pair()
        rows, columns = body.sides
        feature_dim = body.channels * (rows * columns if pooling == "flatten" else 1)
        options = {**sizes, "stem": stem, "stem_kernel": stem_kernel, "residual": pairs, **kinds}
        super().__init__(input_shape, feature_dim=feature_dim, options=options, claims_grp=True)
        # Convolutions on a CPU are several times faster when the channels of a place lie side by side.
        self.layers = nn.Sequential(*body.layers, *body.gate()).to(memory_format=torch.channels_last)
        if signs == "nonnegative":
            for kernel in _kernels(self):
                nn.init.uniform_(kernel, 0.0, 2.0 / kernel[0].numel())

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Values of the top level's units, pooled over the places that are left."""
        maps: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        pooling = self.options["pooling"]
        if pooling == "flatten":
            return maps.flatten(1)
        return maps.mean((2, 3)) if pooling == "mean" else maps.amax((2, 3))

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters of a whitening stem from training inputs."""
        if isinstance(self.layers[0], WhiteningStem):
            self.layers[0].learn_(x)

    @torch.no_grad()
    def constrain_(self) -> None:
        """With ``signs="nonnegative"``: set negative weights, and gains of the gate ``"silu"``, to 0."""
        if self.options["signs"] == "nonnegative":
            gains = [layer.norm.weight for layer in self.modules() if isinstance(layer, SiLUBatchNorm)]
            for weight in [*_kernels(self), *gains]:
                weight.clamp_min_(0.0)


class _Body:
    """The layers so far, and the channels and sides of the maps that they make."""

    def __init__(self, channels: int, sides: tuple[int, int], *, gate: str, norm: str) -> None:
        self.layers: list[nn.Module] = []
        self.channels, self.sides, self.gate_name, self.norm = channels, sides, gate, norm

    def gate(self) -> list[nn.Module]:
        """What stands between two levels."""
        if self.gate_name == "silu":
            return [SiLUBatchNorm(self.channels)]
        norms: list[nn.Module] = [ScaleNorm(self.channels)] if self.norm == "scale" else []
        return [*norms, nn.ReLU()] if self.gate_name == "relu" else norms

    def add_stem(self, kernel: int) -> None:
        """A level of patches that is looked up."""
        layer = WhiteningStem(self.channels, kernel)
        self.layers.append(layer)
        self.channels = layer.out_channels
        height, width = (side + 2 * ((kernel - 1) // 2) - kernel + 1 for side in self.sides)
        self.sides = (height, width)

    def add_level(self, after: int, window: int, stride: int) -> None:
        """Gate what is there, and sum it over windows; the first level has the input below and no gate."""
        self.layers += [*(self.gate() if self.layers else []), self._sum(after, window, stride)]
        self.channels = after

    def add_pair(self) -> None:
        """Two 3x3 levels, and the way around them."""
        branch = [*self.gate(), self._sum(self.channels, 3, 1), *self.gate(), self._sum(self.channels, 3, 1)]
        self.layers.append(Residual(branch))

    def _sum(self, after: int, window: int, stride: int) -> nn.Module:
        above, left = (_padding(side, window, stride) for side in self.sides)
        height, width = self.sides
        self.sides = ((height + 2 * above - window) // stride + 1, (width + 2 * left - window) // stride + 1)
        if self.layers and self.gate_name == "max":
            return OrConv2d(self.channels, after, window, stride=stride, padding=(above, left))
        return nn.Conv2d(self.channels, after, window, stride=stride, padding=(above, left), bias=False)


def _padding(side: int, window: int, stride: int) -> int:
    """Zeros on each side with which every pixel lies in a window, in ``side / stride`` windows, rounded up."""
    missing = (-(-side // stride) - 1) * stride + window - side
    return -(-max(0, missing) // 2)


def _sizes(
    side: int, widths: Sequence[int] | None, windows: Sequence[int] | None, strides: Sequence[int] | None
) -> dict[str, list[int]]:
    """Widths, windows and strides of all levels: as many as the first list that is given, or the default."""
    given = next((len(sizes) for sizes in (widths, windows, strides) if isinstance(sizes, (list, tuple))), 0)
    count = given or 1 + max(0, (side - 1) // 4).bit_length()  # a first window of 4, then halved until one is left
    chosen = check_counts("windows", [4, *[2] * (count - 1)] if windows is None else windows, count)
    filters = [min(_WIDTH << level, _WIDEST) for level in range(count)] if widths is None else widths
    return {
        "widths": check_counts("widths", filters, count),
        "windows": chosen,
        "strides": check_counts("strides", chosen if strides is None else strides, count),
    }


def _kernels(net: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in net.modules() if isinstance(layer, (nn.Conv2d, OrConv2d))]
