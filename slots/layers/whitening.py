"""Whitening of patches, as a layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from slots.errors import UsageError
from slots.layers.patch_layer import AbstractPatchLayer, Maps, Patches


class PatchWhitening(AbstractPatchLayer):
    """Each patch, its contrast normalised, then decorrelated (ZCA): as many channels as a patch has numbers.

    Parameters
    ----------
    kernel_size : int
        Side of a patch (pixels, >= 1).
    stride : int, default 1
        Pixels from one patch to the next, >= 1.
    contrast : float or None, default 10.0
        The patch's mean is subtracted and it is divided by ``sqrt(variance + contrast)``, > 0; 10 suits pixels from 0
        to 255. None: patches stay as they are.
    smoothing : float, default 0.1
        Added to the eigenvalues of the patches' covariance, in units of ``scale``, > 0.
    relative : bool, default False
        Whether ``smoothing`` is a multiple of the mean eigenvalue.

    Notes
    -----
    Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning", 2011, section 3. One
    convolution with the whitening matrix; mean and variance of the patches are box means.
    """

    matrix: Tensor
    offset: Tensor

    def __init__(
        self,
        kernel_size: int,
        *,
        stride: int = 1,
        contrast: float | None = 10.0,
        smoothing: float = 0.1,
        relative: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride)
        if (contrast is not None and contrast <= 0) or smoothing <= 0:
            raise UsageError(
                f"`contrast` and `smoothing` must be > 0, got {contrast} and {smoothing}. Pass contrast=None for none."
            )
        self.contrast, self.smoothing, self.relative = contrast, smoothing, relative
        self.register_buffer("matrix", torch.zeros(0, 0, kernel_size, kernel_size))
        self.register_buffer("offset", torch.zeros(0))

    def extra_repr(self) -> str:
        """Sizes shown by ``print(layer)``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, contrast={self.contrast}"

    @property
    def n_channels(self) -> int:
        """Channels of the input; 0 before `learn`."""
        return self.matrix.shape[1]

    @torch.no_grad()
    def learn(self, patches: Patches) -> None:
        """Take mean and covariance from patches.

        Parameters
        ----------
        patches : float tensor of shape (patch, channel * height * width)
            Flattened patches of the kernel's size.

        Raises
        ------
        DataError
            If the patches have another size.
        """
        channels = self._channels_of(patches)
        rows = patches.float()
        if self.contrast is not None:
            rows = rows - rows.mean(1, keepdim=True)
            rows = rows / (rows.square().mean(1, keepdim=True) + self.contrast).sqrt()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(((rows - mean).T @ (rows - mean) / len(rows)).double())
        floor = self.smoothing * (float(values.mean()) if self.relative else 1.0)
        matrix = ((vectors * (values.clamp_min(0) + floor).rsqrt()) @ vectors.T).float()
        self._replace("matrix", matrix.reshape(len(matrix), channels, self.kernel_size, self.kernel_size))
        self._replace("offset", matrix @ mean)

    def forward(self, maps: Maps) -> Maps:
        """Whitened patches.

        Parameters
        ----------
        maps : float tensor of shape (batch, channel, height, width)
            Images, or the maps of the layer below.

        Returns
        -------
        float tensor of shape (batch, channel * kernel_size**2, rows, columns)
        """
        self._check(maps)
        if self.contrast is None:
            return functional.conv2d(maps, self.matrix, stride=self.stride) - self.offset[:, None, None]
        maps = maps - maps.mean((1, 2, 3), keepdim=True)  # changes nothing but the rounding of the variance
        mean = self._box_means(maps)
        variance = (self._box_means(maps.square()) - mean.square()).clamp_min(0)
        whitened = functional.conv2d(maps, self.matrix, stride=self.stride)
        whitened = whitened - mean * self.matrix.sum((1, 2, 3))[:, None, None]
        return whitened / (variance + self.contrast).sqrt() - self.offset[:, None, None]
