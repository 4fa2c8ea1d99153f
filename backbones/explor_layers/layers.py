"""ExplOR: each neuron averages its own weighted choice of inputs, the largest counting most: a differentiable OR.

For inputs ``x``, weights ``w`` and logits ``l`` of shape (input, neuron) and a key ``k(x)``, with ``s0`` the score of
an optional input "none of them"::

    score_ij = a_x k_i(x) + a_l l_ij
    A_ij     = exp(score_ij) / (exp(s0) + sum_i' exp(score_i'j))
    f_j(x)   = sum_i A_ij w_ij x_i

Scores are sums, so the softmax factors and no (batch, input, neuron) tensor is needed. With ``e = exp(a_x k)`` and
``E = exp(a_l l)``: ``f = ((e * x) @ (E * w)) / (e @ E + exp(s0))``, exactly. `backbones.explor_layers.base` holds that.
"""

from __future__ import annotations

from typing import Unpack

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from backbones.explor_layers.base import AbstractExplor, Choice
from backbones.precision import full_precision


class ExplORLinear(AbstractExplor):
    """ExplOR over all inputs of a sample.

    Parameters
    ----------
    in_features, out_features : int
        Number of inputs and of neurons.
    **choice
        ``a_x``, ``a_l``, ``key``, ``logits``, ``null_score``, ``form``: see `AbstractExplor`.

    Notes
    -----
    Limits: ``a_x`` to infinity is the largest of the neuron's inputs; ``a_x = a_l = 0`` the mean of ``w x``;
    ``a_x = 0`` a linear neuron with sparse weights; one input a neuron and a null score of 0 is SiLU (``a_x = 1``, raw
    key) and ReLU (``a_x`` to infinity).
    """

    def __init__(self, in_features: int, out_features: int, **choice: Unpack[Choice]) -> None:
        super().__init__((out_features, in_features), **choice)

    def forward(self, x: Float[Tensor, "batch input"]) -> Float[Tensor, "batch neuron"]:
        """The neurons' values."""
        with full_precision(x) as wide:
            return self.choose(wide)


class ExplOR2d(AbstractExplor):
    """ExplOR over the channels and positions of a window: a max pooling that learns what to pool.

    Parameters
    ----------
    in_channels, out_channels : int
        Maps that come in, and neurons (maps that go out), >= 1.
    window : int
        Side of the square window (pixels, >= 1).
    stride : int, optional
        Step of the window (pixels, >= 1). Default: the window.
    padding : int
        Border (pixels, >= 0), never chosen: it is added after the exponential. The forms ``"lse"`` and ``"pnorm"``
        know no border.
    **choice
        ``a_x``, ``a_l``, ``key``, ``logits``, ``null_score``, ``form``: see `AbstractExplor`. Dobble sets are sets of
        channels, the same at each position of the window.

    Notes
    -----
    Two ordinary convolutions, ``conv2d(e * x, E * w) / conv2d(e, E)``. `MaxPool2d` is the limit of one channel
    a neuron, weight 1, the raw key and large ``a_x``. Where windows tile the input both are matrix products.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: int = 2,
        *,
        stride: int | None = None,
        padding: int = 0,
        **choice: Unpack[Choice],
    ) -> None:
        super().__init__((out_channels, in_channels, window, window), **choice)
        if padding and self.form != "average":
            raise ValueError(f"`padding` must be 0 with form={self.form!r}, got {padding}. Pad the input yourself.")
        self.window, self.stride, self.padding = window, stride or window, padding

    def rows(self, parameter: Float[Tensor, "neuron channel row column"]) -> Float[Tensor, "neuron input"]:
        """One row a neuron, places of the window first."""
        return parameter.permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the window."""
        with full_precision(x) as wide:
            if self.stride == self.window and self.padding == 0:
                chosen = self.choose(self._tiles(wide), dims=(3, 4), product=_product_of_tiles)
            elif self.form != "average":
                chosen = self.choose(self._windows(wide))
            else:
                # Windows that overlap share inputs, and so the maximum of their picture's scores.
                chosen = self.choose(wide.permute(0, 2, 3, 1), dims=(1, 2, 3), product=self._convolve)
        return chosen.permute(0, 3, 1, 2)

    def _tiles(self, x: Tensor) -> Float[Tensor, "batch row column place channel"]:
        """Windows that share no input, without what fills none."""
        rows, columns = x.shape[2] // self.window, x.shape[3] // self.window
        tiles = x[:, :, : rows * self.window, : columns * self.window].permute(0, 2, 3, 1)
        tiles = tiles.unflatten(2, (columns, self.window)).unflatten(1, (rows, self.window))
        gathered: Tensor = tiles.transpose(2, 3).flatten(3, 4)
        return gathered

    def _windows(self, x: Tensor) -> Float[Tensor, "batch row column place channel"]:
        """Windows that overlap, each a copy."""
        windows = x.unfold(2, self.window, self.stride).unfold(3, self.window, self.stride)
        return windows.permute(0, 2, 3, 4, 5, 1).flatten(3, 4)

    def _convolve(self, x: Float[Tensor, "batch height width channel"], rows: Float[Tensor, "neuron input"]) -> Tensor:
        """The convolution with a kernel that is given as rows, of shape (batch, row, column, neuron)."""
        kernel = rows.view(len(rows), self.window, self.window, -1).permute(0, 3, 1, 2)
        maps = functional.conv2d(x.permute(0, 3, 1, 2), kernel, stride=self.stride, padding=self.padding)
        return maps.permute(0, 2, 3, 1)


class ExplORConv2d(AbstractExplor):
    """ExplOR over the channels at each position of a kernel, summed over the positions: an AND of ORs.

    Parameters
    ----------
    in_channels, out_channels : int
        Maps that come in, and neurons (maps that go out), >= 1.
    kernel_size : int
        Side of the square kernel (pixels, >= 1).
    stride, padding, dilation : int
        As in `torch.nn.Conv2d` (pixels); a position outside of the input adds 0.
    **choice
        ``a_x``, ``a_l``, ``key``, ``logits``, ``null_score``, ``form``: see `AbstractExplor`. Dobble sets are the same
        at each position of the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        **choice: Unpack[Choice],
    ) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), **choice)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def rows(self, parameter: Float[Tensor, "neuron channel row column"]) -> Float[Tensor, "position_neuron channel"]:
        """One row for each position and neuron, positions first."""
        return parameter.permute(2, 3, 0, 1).reshape(-1, parameter.shape[1])

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch neuron row column"]:
        """The neurons' values at each place of the kernel."""
        with full_precision(x) as wide:
            chosen = self.choose(wide.permute(0, 2, 3, 1))
        return self._gather(chosen.permute(0, 3, 1, 2))

    def _gather(self, chosen: Tensor) -> Tensor:
        """Sum over kernel positions of their maps (batch, position * neuron, height, width), each at its place."""
        padded = functional.pad(chosen, [self.padding] * 4)
        reach = self.dilation * (self.kernel_size - 1)
        rows, columns = padded.shape[2] - reach, padded.shape[3] - reach
        total: Tensor | None = None
        for position, maps in enumerate(padded.chunk(self.kernel_size**2, dim=1)):
            top, left = (self.dilation * side for side in divmod(position, self.kernel_size))
            here = maps[:, :, top : top + rows : self.stride, left : left + columns : self.stride]
            total = here if total is None else total + here
        assert total is not None
        return total


def _product_of_tiles(tiles: Float[Tensor, "batch row column place channel"], rows: Tensor) -> Tensor:
    return functional.linear(tiles.flatten(3), rows)
