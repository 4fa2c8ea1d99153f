"""`parts`: how strongly each of a few small patches is present in each cell of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import AbstractBackbone, check_input_shape
from backbones.checks import check_choice, check_count
from backbones.layers.silu_batchnorm import SiLUBatchNorm
from backbones.layers.whitening_stem import WhiteningStem
from backbones.nets.sizes import sides_after
from backbones.parts.bag import BagOfPatches
from backbones.parts.competition import Competition
from backbones.parts.receptive_field import Field

_OF_SIDE = 0.4  # side of a part by default, of the shorter side of the picture
_WIDE = 16  # pixels of the shorter side from which on a step of two pixels loses nothing
FIRSTS: Final = ("convolution", "pooled")
PLACES: Final = ("cells", "anywhere")


class Parts(AbstractBackbone):
    """Convolutions that see a small patch, parts as unit vectors over what they see, the largest response a cell.

    Bias-free convolutions without padding, each with `SiLUBatchNorm`, and a `Competition` of the last channels make a
    vector ``f`` of each patch, without negative entries and often with one that is large. Part ``k`` is a unit vector
    ``v_k`` and responds by ``<f, v_k>``: at first a channel, later a patch of a training example (`take_parts`), which
    responds only where the patch is like it: by ``max(0, <f, v_k> - t |f|) / (1 - t)``, from a cosine of ``t`` on. The
    picture is cut into cells that overlap, and a feature is the largest response of one part in one cell:
    ``parts x rows x columns`` of them. A slot of a few features is then a drawing of a few parts at their places, with
    some room to move. With ``where="anywhere"`` the whole picture is one cell, and a slot is a few parts wherever they
    are: for photographs, whose objects stand anywhere.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width of one input.
    channels : int
        Channels that compete, and length of the vector of a patch (count, >= 1).
    parts : int, optional
        Number of parts (count, >= 1). Default: one for each channel.
    receptive_field : int, optional
        Side of the patch that a part sees (pixels, >= 1, at most the shorter side): 1 + 2 ``step``, and any number of
        ``step`` more. Default: two fifths of the shorter side, or the next smaller one that can be built.
    step : int, optional
        Pixels from one patch to the next (>= 1). Default: 2 where the shorter side is at least 16, else 1.
    width : int
        Channels below the last layer (count, >= 1); the first two layers have three eighths and three quarters of it,
        or a quarter and half with ``first="pooled"``.
    sharpness : float
        Of the competition (>= 0).
    threshold : float
        The cosine ``t`` from which on a part responds, in [0, 1).
    where : {"cells", "anywhere"}
        Whether the picture is cut into cells.
    first : {"convolution", "pooled"}
        What sees the first 1 + 2 ``step`` pixels: one convolution; or a `WhiteningStem` of 2x2 pixels, looked up in the
        training images, with ReLU, a 3x3 convolution and the largest of 2x2 places. The second needs a step of 2 and a
        field of at least 5 pixels, takes more time, and learns more of photographs.

    Attributes
    ----------
    vectors : buffer of shape (part, channels)
        The parts, unit vectors without negative entries.
    sources : int64 buffer of shape (part, 3)
        Training example of the patch that a part is, and its row and column in `locations`. -1: a part that is a
        channel, and no patch.
    patches : buffer of shape (part, channel, receptive_field, receptive_field)
        Those patches, as the network saw them.
    cells : tuple of two int
        Rows and columns of cells.

    Notes
    -----
    Feature ``(part * rows + row) * columns + column`` belongs to the cell ``(row, column)``. Nothing outside of its
    field moves a response by a single bit: there is no padding, and in evaluation nothing looks at the whole picture.
    The Gradient Representation Property holds, so the share of a part in the score of a slot is the inner product of
    the part's template with the pixels under it.

    Sources: Chen et al. (2019, ProtoPNet) for parts as vectors over patches; Carmichael et al. (2024) for fields that
    are small by construction; Rymarczyk et al. (2022, ProtoPool) for parts that classes share.
    """

    name: ClassVar[str] = "parts"
    vectors: Tensor
    sources: Tensor
    patches: Tensor

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        channels: int = 100,
        parts: int | None = None,
        receptive_field: int | None = None,
        step: int | None = None,
        width: int = 64,
        sharpness: float = 2.0,
        threshold: float = 0.0,
        where: str = "cells",
        first: str = "convolution",
    ) -> None:
        check_choice("where", where, PLACES)
        check_choice("first", first, FIRSTS)
        colours, height, columns = check_input_shape(input_shape)
        side = min(height, columns)
        step = (1 + (side >= _WIDE)) if step is None else step
        check_count("channels", channels)
        parts = channels if parts is None else parts
        for name, value in (("parts", parts), ("step", step), ("width", width)):
            check_count(name, value)
        size = _field(receptive_field, step, side)
        kernels = _kernels(size, step)
        if first == "pooled" and (step != 2 or size < 1 + 2 * step):
            raise ValueError(
                f"`first` must be convolution with a step of {step} and a field of {size}, got 'pooled'. It needs a "
                "step of 2 and a field of at least 5."
            )
        sides = (height, columns)
        for place, kernel in enumerate(kernels):
            sides = sides_after(sides, kernel, stride=step if place == 0 else 1)
        cells, window, stride = _cells(sides, where)
        sizes = {"channels": channels, "parts": parts, "receptive_field": size, "step": step, "width": width}
        _check_threshold(threshold)
        options = {**sizes, "sharpness": sharpness, "threshold": threshold, "where": where, "first": first}
        super().__init__(input_shape, feature_dim=parts * math.prod(cells), options=options, claims_grp=True)
        self.cells, self.window, self.stride = cells, window, stride
        self.encoder = nn.Sequential(
            _encoder(colours, kernels, step, width, pooled=first == "pooled"),
            nn.Conv2d(width, channels, 1, bias=False),
            Competition(sharpness),
        ).to(memory_format=torch.channels_last)
        self.register_buffer("vectors", torch.eye(channels)[torch.arange(parts) % channels])
        self.register_buffer("sources", torch.full((parts, 3), -1, dtype=torch.long))
        self.register_buffer("patches", torch.zeros(parts, colours, size, size))

    @torch.no_grad()
    def prepare_(self, x: Float[Tensor, "batch channel height width"]) -> None:
        """Take the filters of a whitening stem from training inputs."""
        self.bag().prepare_(x)

    def bag(self) -> BagOfPatches:
        """The layers below the channels, whose weights it shares, as a network of its own; it learns faster."""
        return BagOfPatches(self.encoder[0])

    @torch.no_grad()
    def begin_channels_(self, directions: Float[Tensor, "channels width"]) -> None:
        """Let the channels begin as directions of what the layers below say of patches, one each.

        Parameters
        ----------
        directions : float tensor of shape (channels or fewer, width)
            Such as the centres of groups of patches. Channels that get none keep what they have.

        Raises
        ------
        ValueError
            If the shape is another.
        """
        (weight,) = self.encoder[1].parameters()
        most, width = weight.shape[:2]
        if directions.ndim != 2 or directions.shape[1] != width or len(directions) > most:
            raise ValueError(
                f"`directions` must have a shape of at most ({most}, {width}), got {tuple(directions.shape)}. Give "
                "one a channel."
            )
        weight[: len(directions)] = functional.normalize(directions.to(weight), dim=1)[:, :, None, None]

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return len(self.vectors)

    @property
    def n_channels(self) -> int:
        """Channels that compete."""
        return int(self.vectors.shape[1])

    def locations(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channels row column"]:
        """The vector of every patch."""
        maps: Tensor = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return maps

    def responses(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch part row column"]:
        """Response of every part to every patch, >= 0."""
        vectors = self.locations(x)
        alike = functional.conv2d(vectors, self.vectors[:, :, None, None])
        threshold: float = self.options["threshold"]
        if not threshold:
            return alike
        lengths: Tensor = vectors.norm(dim=1, keepdim=True)
        return functional.relu(alike - threshold * lengths) / (1 - threshold)

    def features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Largest response of each part in each cell."""
        return functional.max_pool2d(self.responses(x), self.window, self.stride).flatten(1)

    def field(self, place: tuple[int, int]) -> Field:
        """The pixels that a patch is made of.

        Parameters
        ----------
        place : tuple of two int
            Row and column of the patch in `locations`.
        """
        step, size = self.options["step"], self.options["receptive_field"]
        top, left = place[0] * step, place[1] * step
        return Field(top, left, top + size, left + size)

    @torch.no_grad()
    def found_at(
        self, x: Float[Tensor, "batch channel height width"], features: Sequence[int]
    ) -> Int[Tensor, "batch feature 2"]:
        """Where the parts of some features respond most within the features' cells.

        Parameters
        ----------
        x : float tensor of shape (batch, channel, height, width)
            Inputs, already scaled.
        features : sequence of int
            Places in the feature vector.

        Returns
        -------
        int64 tensor of shape (batch, feature, 2)
            Row and column in `locations`, the first of equal ones; `field` tells the pixels.
        """
        responses = self.responses(x)
        (height, width), (down, across) = self.window, self.stride
        found = torch.zeros(len(x), len(features), 2, dtype=torch.long, device=responses.device)
        for at, feature in enumerate(features):
            part, cell = divmod(feature, math.prod(self.cells))
            row, column = divmod(cell, self.cells[1])
            maps = responses[:, part, row * down :, column * across :][:, :height, :width]
            best = maps.flatten(1).argmax(1)
            found[:, at, 0] = best // maps.shape[2] + row * down
            found[:, at, 1] = best % maps.shape[2] + column * across
        return found

    @torch.no_grad()
    def take_parts(
        self,
        vectors: Float[Tensor, "part channels"],
        sources: Int[Tensor, "part 3"],
        patches: Float[Tensor, "part channel side side"],
        *,
        threshold: float = 0.0,
    ) -> None:
        """Put patches of training examples in place of the parts, as many as there are.

        Parameters
        ----------
        vectors : float tensor of shape (part, channels)
            What `locations` gives for the patches; normalised here.
        sources : int64 tensor of shape (part, 3)
            Example, row and column of the patch in `locations`.
        patches : float tensor of shape (part, channel, receptive_field, receptive_field)
            The patches.
        threshold : float
            Cosine from which on they respond, in [0, 1).

        Raises
        ------
        ValueError
            If the shapes disagree, a vector is zero, or the threshold is out of its range.
        """
        _check_threshold(threshold)
        size, width, count = self.options["receptive_field"], self.options["channels"], len(vectors)
        shape = (count, self.input_shape[0], size, size)
        if not count or vectors.shape != (count, width) or sources.shape != (count, 3) or patches.shape != shape:
            raise ValueError(
                f"`vectors`, `sources` and `patches` must have shapes ({count}, {width}), ({count}, 3) and "
                f"{shape}, got {tuple(vectors.shape)}, {tuple(sources.shape)} "
                f"and {tuple(patches.shape)}. Give one of each a part."
            )
        if bool((vectors == 0).all(1).any()):
            raise ValueError("`vectors` must have no zero row, got one. Leave out patches that show nothing.")
        self.vectors = functional.normalize(vectors.to(self.vectors), dim=1)
        self.sources, self.patches = sources.to(self.sources), patches.to(self.patches)
        self.options = {**self.options, "parts": count, "threshold": threshold}
        self.feature_dim = count * math.prod(self.cells)


def _check_threshold(threshold: object) -> None:
    """Raise a ValueError unless it is a number in [0, 1)."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold < 1:
        raise ValueError(f"`threshold` must lie in [0, 1), got {threshold!r}. 0.6 asks for patches that look alike.")


def _cells(sides: tuple[int, int], where: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Number of cells, their sides, and the steps between them, each down and across."""
    if where == "anywhere":
        return (1, 1), sides, (1, 1)
    window = (sides[0] + 1) // 2, (sides[1] + 1) // 2
    stride = max(1, (sides[0] - window[0]) // 2), max(1, (sides[1] - window[1]) // 2)
    return ((sides[0] - window[0]) // stride[0] + 1, (sides[1] - window[1]) // stride[1] + 1), window, stride


def _encoder(channels: int, kernels: list[int], step: int, width: int, *, pooled: bool) -> nn.Sequential:
    """Convolutions without padding, and one more of a single place."""
    layers: list[nn.Module] = []
    shares = (2, 4, 8) if pooled else (3, 6, 8)  # before the pooling every channel costs four times as much
    for place, kernel in enumerate([*kernels, 1]):
        wide = max(1, width * shares[min(place, 2)] // 8)
        if place == 0 and pooled:
            stem = WhiteningStem(channels)
            layers += [stem, nn.ReLU(), nn.Conv2d(stem.out_channels, wide, 3, bias=False), nn.MaxPool2d(2)]
            layers += [SiLUBatchNorm(wide)]
        else:
            stride = step if place == 0 else 1
            layers += [nn.Conv2d(channels, wide, kernel, stride=stride, bias=False), SiLUBatchNorm(wide)]
        channels = wide
    if channels != width:  # one layer only, where patches are no larger than its kernel
        layers += [nn.Conv2d(channels, width, 1, bias=False), SiLUBatchNorm(width)]
    return nn.Sequential(*layers)


def _kernels(field: int, step: int) -> list[int]:
    """Sides of the kernels of layers that together see ``field`` pixels; the first moves by ``step``."""
    first = min(field, 1 + 2 * step)
    threes, twos = divmod((field - first) // step, 2)
    return [first, *[3] * threes, *[2] * twos]


def _field(wanted: int | None, step: int, side: int) -> int:
    """Side of a part (pixels) that can be built.

    Raises
    ------
    ValueError
        If the wish cannot be.
    """
    if wanted is None:
        most = max(1, round(_OF_SIDE * side))
        first = 1 + 2 * step
        return most if most <= first else most - (most - first) % step
    check_count("receptive_field", wanted)
    if wanted > side or (wanted > 1 + 2 * step and (wanted - 1) % step):
        near = min(wanted, side)
        near -= (near - 1) % step if near > 1 + 2 * step else 0
        raise ValueError(
            f"`receptive_field` must be at most {side}, the shorter side, and 1 more than a multiple of the step of "
            f"{step}, got {wanted}. {near} can be built."
        )
    return wanted
