"""Classes as Gaussians of one shared covariance: whether an input fits a class, fits it better than all, or neither."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from slots.features.few_rows import along_rows
from slots.shapes import Features, Labels

CLASS_EVIDENCE = 3
"""Columns that `ClassGaussians.evidence` gives."""

_FULL = 1024  # features up to which every direction is kept
_KEPT = 512  # directions beyond
_TINY = 1e-8  # share of the mean variance below which a direction counts as constant


@dataclass(frozen=True)
class ClassGaussians:
    """Class means in whitened space, the directions that separate classes first.

    Parameters
    ----------
    mean : float64 tensor of shape (feature,)
        Of all examples.
    plane : float64 tensor of shape (feature, kept) or None
        Orthonormal columns: what is kept of the centred features. None: all.
    whitening : float64 tensor of shape (kept, direction)
        From there to coordinates of unit variance within the classes.
    rest_inverse_scale : float
        One over the standard deviation along each direction off the plane; 0 where there is none.
    places : float64 tensor of shape (class, separating)
        Class means in the first coordinates; all others are 0 there.
    between : float64 tensor of shape (separating,)
        Variance of the class means along those coordinates, largest first.
    """

    mean: Float[Tensor, " feature"]
    plane: Float[Tensor, "feature kept"] | None
    whitening: Float[Tensor, "kept direction"]
    rest_inverse_scale: float
    places: Float[Tensor, "label separating"]
    between: Float[Tensor, " separating"]

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def _half_squares(self) -> Tensor:
        """Half of the squared length of each place."""
        return self.places.square().sum(1) / 2

    def to(self, device: torch.device | str) -> ClassGaussians:
        """The same on another device; itself where it lies there."""
        if self.mean.device == torch.device(device):
            return self
        return replace(
            self,
            mean=self.mean.to(device),
            plane=None if self.plane is None else self.plane.to(device),
            whitening=self.whitening.to(device),
            places=self.places.to(device),
            between=self.between.to(device),
        )

    def separating(self) -> ClassGaussians:
        """What separates the classes alone: small, and the distance off their plane is 0 for every input.

        Numbers are those of float32, so that they can be stored as such.
        """
        first = self.whitening[:, : self.places.shape[1]]
        narrow = first if self.plane is None else self.plane @ first
        mean, narrow, places, between = (
            value.float().double() for value in (self.mean, narrow, self.places, self.between)
        )
        return ClassGaussians(mean, None, narrow, 0.0, places, between)

    @torch.no_grad()
    def evidence(self, features: Features) -> Float[Tensor, "example evidence"]:
        """Three measures of what speaks against the classes; the higher, the more novel.

        Parameters
        ----------
        features : float tensor of shape (example, feature)
            Raw features.

        Returns
        -------
        float64 tensor of shape (example, CLASS_EVIDENCE)
            Relative distance: squared distance to the nearest class less that to the Gaussian of all (Ren et al. 2021,
            equation 2). Distance off the plane of the class means (as Wang et al. 2022, in whitened units). Energy:
            minus the logarithm of the summed exponentials of the linear discriminants (Liu et al. 2020, equation 3).
        """
        gap = features.double() - self.mean
        kept = gap if self.plane is None else gap @ self.plane
        along = kept @ self.whitening
        n = self.places.shape[1]
        inside, beyond = along[:, :n], along[:, n:].square().sum(1)
        if self.rest_inverse_scale:
            left = (gap.square().sum(1) - kept.square().sum(1)).clamp_min(0)
            beyond = beyond + self.rest_inverse_scale**2 * left
        logits = inside @ self.places.T - self._half_squares
        squares = inside.square().sum(1)
        nearest = squares - 2 * logits.amax(1)
        relative = nearest - (inside.square() / (1 + self.between)).sum(1)
        return torch.stack([relative, beyond.sqrt(), -logits.logsumexp(1)], 1)


@torch.no_grad()
def fit_gaussians(features: Features, labels: Labels) -> ClassGaussians:
    """Class means under the pooled covariance within classes, shrunk as Ledoit and Wolf (2004) do.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        Raw features, at least one row.
    labels : int64 tensor of shape (example,)
        From 0 to the number of classes - 1, each of them at least once.

    Returns
    -------
    ClassGaussians
        Of at most 1,024 features every direction is kept, of more the 512 along which the examples vary most, and one
        variance for the rest.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # here, since answering needs none of it

    n, width = features.shape
    rows = features.double()
    mean = rows.mean(0)
    gap = rows - mean
    counts = torch.bincount(labels).double()
    sums = torch.zeros(len(counts), width, dtype=torch.float64, device=rows.device)
    means = sums.index_add_(0, labels, gap) / counts[:, None]
    within = gap - means[labels]
    freedom = max(1, n - len(counts))
    shrinkage = float(ledoit_wolf_shrinkage(within.cpu().numpy(), assume_centered=True)) if n > 1 else 1.0
    variance = float(within.square().sum()) / (freedom * width) or float(gap.square().mean()) or 1.0
    few = 2 * n <= width  # then all means and examples lie in a plane
    plane = along_rows(gap)[1] if few else _main_plane(gap) if width > _FULL else None
    inner = within if plane is None else within @ plane
    covariance = (1 - shrinkage) * inner.T @ inner / freedom
    values, vectors = torch.linalg.eigh(covariance)
    scales = (values.clamp_min(0) + shrinkage * variance).clamp_min(_TINY * variance).rsqrt()
    whitening = vectors * scales
    places = (means if plane is None else means @ plane) @ whitening
    _, strength, turned = torch.linalg.svd(places * (counts / n).sqrt()[:, None], full_matrices=True)
    separating = max(1, int((strength > 1e-6 * strength.amax()).sum()))
    rest = 0.0
    if plane is not None:
        left = max(0.0, float(within.square().sum() - inner.square().sum())) / (freedom * (width - plane.shape[1]))
        rest = max((1 - shrinkage) * left + shrinkage * variance, _TINY * variance) ** -0.5
    return ClassGaussians(
        mean=mean,
        plane=plane,
        whitening=whitening @ turned.T,
        rest_inverse_scale=rest,
        places=(places @ turned.T)[:, :separating],
        between=strength[:separating].square(),
    )


def _main_plane(gap: Tensor) -> Tensor:
    """Orthonormal columns along which rows vary most, from at most a thousand of the rows."""
    some = gap[:: max(1, -(-len(gap) // _FULL))]
    values, vectors = torch.linalg.eigh(some @ some.T)
    kept = values[-_KEPT:] > _TINY * values[-1]
    if not bool(kept.any()):
        return torch.eye(gap.shape[1], 1, dtype=gap.dtype, device=gap.device)
    plane: Tensor = torch.linalg.qr(some.T @ vectors[:, -_KEPT:][:, kept])[0]
    return plane
