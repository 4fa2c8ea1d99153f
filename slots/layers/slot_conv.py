"""`SlotConv2d`: slots as a convolutional layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.clustering.competitive import learn_slots, share_thresholds
from slots.clustering.slot_clusters import ClusterConfig, SlotClusters
from slots.errors import UsageError
from slots.head.similarities import similarity
from slots.layers.patch_layer import AbstractPatchLayer, Maps, Patches

Encoding = Literal["scores", "threshold", "triangle", "winner"]
ENCODINGS = ("scores", "threshold", "triangle", "winner")
_REFERENCE = 20_000  # patches on which the thresholds of another share are taken


class SlotConv2d(AbstractPatchLayer):
    """Slots as a convolutional layer: the response of each slot to each patch.

    Parameters
    ----------
    kernel_size : int
        Side of a patch (pixels, >= 1). 1 after a `PatchWhitening`, whose channels are whole patches.
    stride : int, default 1
        Pixels from one patch to the next, >= 1.
    config : ClusterConfig, optional
        How the slots are learned; it also says whether scores are cosines or negative squared distances, and whether
        they are normalised.
    encoding : {"triangle", "threshold", "scores", "winner"}, default "triangle"
        ``scores`` as they are; ``threshold``: how far above the score that a share of the patches reaches, 0 below;
        ``triangle``: how far above the mean over the slots, 0 below; ``winner``: 1 for the best slot, 0 for the others.
    share : float in (0, 1), optional
        For ``threshold``. Default: that of ``config``.
    normalized : bool, optional
        Whether a slot's scores have its mean subtracted and are divided by its deviation, both over the patches it was
        learned on, before they are encoded. Default: what ``config`` says.

    Attributes
    ----------
    weights : parameter of shape (slot, channel, height, width)
        Unit vectors under cosine. Empty before `learn`; a new parameter after it.
    thresholds, mean, deviation : float buffers of shape (slot,)
        Of the slots' raw scores over the patches they were learned on.
    wins : int64 buffer of shape (slot,)
        Patches that belonged to each slot.

    Notes
    -----
    Cosine: a convolution over the patch's norm, which is the root of a box sum; distance: ``2 conv - box sum - |w|^2``.
    No patch is ever copied out of the map. ``triangle`` of distances takes their roots, as Coates, Lee and Ng (2011)
    do, unless they are normalised.

    Examples
    --------
    >>> layer = SlotConv2d(1, config=ClusterConfig(share=0.5, min_wins=1), encoding="scores")
    >>> layer.learn(torch.tensor([[3.0, 0.0], [2.0, 0.0], [0.0, 5.0], [0.0, 4.0]]))
    >>> layer(torch.tensor([0.6, 0.8]).reshape(1, 2, 1, 1)).flatten()
    tensor([0.6000, 0.8000], grad_fn=<ViewBackward0>)
    """

    weights: nn.Parameter
    thresholds: Tensor
    mean: Tensor
    deviation: Tensor
    wins: Tensor

    def __init__(
        self,
        kernel_size: int,
        *,
        stride: int = 1,
        config: ClusterConfig | None = None,
        encoding: Encoding = "triangle",
        share: float | None = None,
        normalized: bool | None = None,
    ) -> None:
        super().__init__(kernel_size, stride)
        if encoding not in ENCODINGS:
            raise UsageError(f"`encoding` must be one of {', '.join(ENCODINGS)}, got {encoding!r}. Try 'triangle'.")
        if share is not None and not 0 < share < 1:
            raise UsageError(f"`share` must lie in (0, 1), got {share}. 0.2 lets one patch in five pass.")
        self.config, self.encoding, self.share = config or ClusterConfig(), encoding, share
        self.normalized = self.config.normalized if normalized is None else normalized
        self.weights = nn.Parameter(torch.zeros(0, 0, kernel_size, kernel_size))
        for name in ("thresholds", "mean", "deviation"):
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("wins", torch.zeros(0, dtype=torch.long))

    def extra_repr(self) -> str:
        """Sizes shown by ``print(layer)``."""
        return (
            f"slots={self.n_slots}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"metric={self.config.metric}, normalized={self.normalized}, encoding={self.encoding}"
        )

    @property
    def n_channels(self) -> int:
        """Channels of the input; 0 before `learn`."""
        return self.weights.shape[1]

    @property
    def n_slots(self) -> int:
        """Number of slots, the channels of the output."""
        return len(self.weights)

    @torch.no_grad()
    def learn(self, patches: Patches) -> None:
        """Learn the slots; those it had are dropped.

        Parameters
        ----------
        patches : float tensor of shape (patch, channel * height * width)
            Flattened patches of the kernel's size, unwhitened.

        Raises
        ------
        DataError
            If the patches have another size, are not finite, or fewer than two take part.
        """
        self._channels_of(patches)
        found = learn_slots(patches, self.config)
        self.take(found)
        if self.share is not None:
            some = patches[:: -(-len(patches) // _REFERENCE)].float()
            limits = share_thresholds(similarity(some, found.weights, metric=found.metric), self.share)
            self._replace("thresholds", limits)

    @torch.no_grad()
    def take(self, slots: SlotClusters) -> None:
        """Use slots that were learned elsewhere.

        Parameters
        ----------
        slots : SlotClusters
            Their features are patches, flattened as (channel, height, width).

        Raises
        ------
        UsageError
            If they have another metric than ``config`` says.
        DataError
            If their features are no patches of this layer's side.
        """
        if slots.metric != self.config.metric:
            raise UsageError(
                f"`slots` must have metric={self.config.metric!r}, got {slots.metric!r}. "
                "Build the layer with the config they were learned with."
            )
        channels = self._channels_of(slots.weights)
        shape = (slots.n_slots, channels, self.kernel_size, self.kernel_size)
        self._replace("weights", slots.weights.reshape(shape))
        for name in ("thresholds", "mean", "deviation", "wins"):
            self._replace(name, getattr(slots, name))

    def scores(self, maps: Maps) -> Maps:
        """Raw score of each patch for each slot: cosine, or negative squared distance.

        Parameters
        ----------
        maps : float tensor of shape (batch, channel, height, width)
            Images, or the maps of the layer below.

        Returns
        -------
        float tensor of shape (batch, slot, rows, columns)
        """
        self._check(maps)
        size = self.weights[0].numel()
        squares = size * self._box_means(maps.square())
        products = functional.conv2d(maps, self.weights, stride=self.stride)
        if self.config.metric == "cosine":
            return products * torch.where(squares > 0, squares, torch.ones_like(squares)).rsqrt()
        own = self.weights.square().sum((1, 2, 3))[:, None, None]
        return -(squares + own - 2 * products).clamp_min(0)  # rounding must not make a distance negative

    def forward(self, maps: Maps) -> Maps:
        """Encoded scores.

        Parameters
        ----------
        maps : float tensor of shape (batch, channel, height, width)
            Images, or the maps of the layer below.

        Returns
        -------
        float tensor of shape (batch, slot, rows, columns)

        Raises
        ------
        EmptyHeadError
            If no slots were learned yet.
        ValueError
            If the maps have other channels than the patches had, or are smaller than a patch.
        """
        scores = self.scores(maps)
        limits = self.thresholds[:, None, None]
        if self.normalized:
            mean, deviation = self.mean[:, None, None], self.deviation[:, None, None]
            scores, limits = (scores - mean) / deviation, (limits - mean) / deviation
        if self.encoding == "threshold":
            return (scores - limits).relu()
        if self.encoding == "triangle":
            if self.config.metric == "l2" and not self.normalized:
                scores = -(-scores).clamp_min(1e-12).sqrt()  # a root of 0 has no gradient
            return (scores - scores.mean(1, keepdim=True)).relu()
        if self.encoding == "winner":
            return functional.one_hot(scores.argmax(1), self.n_slots).movedim(-1, 1).to(scores)
        return scores
