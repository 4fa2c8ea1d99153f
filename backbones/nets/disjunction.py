"""`disjunction`: large parts found anywhere, and conjunctions of a few of them; the head is the disjunction."""

from __future__ import annotations

from typing import ClassVar, Final

from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count
from backbones.layers.scale_norm import ScaleNorm
from backbones.layers.softmax_pooling import Mean
from backbones.nets.sizes import fitting

NORMS: Final = ("batch", "scale")
_KERNEL: Final = 10


class Disjunction(AbstractBackbone):
    """One layer: how well each part fits where it fits best, and the mean over the parts of each conjunction.

    Convolution, largest value over all places, batch normalisation, mean over groups. The conjunctions are the
    features: a softmax pooling over each class's conjunctions belongs to the head above (which pools over each class's
    slots), so that a class is one conjunction *or* another, and each is one part *and* another.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    parts : int
        Filters (count, >= 1).
    conjunctions : int
        Features (count, >= 1, divides ``parts``); each is the mean of ``parts / conjunctions`` parts.
    kernel : int, optional
        Side of a filter (pixels, >= 1). Default: 10, or the shorter side of smaller inputs.
    stride : int
        Step of the filters (pixels, >= 1).
    norm : {"batch", "scale"}
        ``"batch"``: batch normalisation of each part's largest value, which makes parts comparable. ``"scale"``:
        `ScaleNorm`, which does not centre.

    Notes
    -----
    A batch normalisation subtracts a mean, which the input does not explain; only ``norm="scale"`` claims the Gradient
    Representation Property. The feature's gradient is then the collage of its parts, each where it was found.
    """

    name: ClassVar[str] = "disjunction"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        parts: int = 120,
        conjunctions: int = 24,
        kernel: int | None = None,
        stride: int = 2,
        norm: str = "batch",
    ) -> None:
        channels, height, width = check_input_shape(input_shape)
        check_count("parts", parts)
        check_count("conjunctions", conjunctions)
        if parts % conjunctions:
            raise ValueError(
                f"`conjunctions` must divide {parts}, the parts, got {conjunctions}. Each takes as many parts."
            )
        kernel = fitting("kernel", kernel, _KERNEL, (height, width))
        check_count("stride", stride)
        check_choice("norm", norm, NORMS)
        options = {"parts": parts, "conjunctions": conjunctions, "kernel": kernel, "stride": stride, "norm": norm}
        super().__init__(input_shape, feature_dim=conjunctions, options=options, claims_grp=norm == "scale")
        self.parts = nn.Conv2d(channels, parts, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(parts) if norm == "batch" else ScaleNorm(parts)
        self.mean = Mean(conjunctions)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Mean of the normalised largest values of each conjunction's parts."""
        largest = self.parts(x).amax((2, 3), keepdim=True)  # of one place, so that BatchNorm2d is BatchNorm1d
        conjunctions: Tensor = self.mean(self.norm(largest).flatten(1))
        return conjunctions
