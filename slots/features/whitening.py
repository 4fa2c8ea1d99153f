"""Whitening: features in which the spread within a class is the same in all directions, before the sphere.

Cosines between raw features weigh each direction by its variance, most of which is often shared by all classes and says
nothing about them. Divided by the spread *within* classes, angles measure what tells classes apart: the nearest class
mean in whitened features is linear discriminant analysis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slots.features.few_rows import along_rows
from slots.shapes import Labels

By = Literal["covariance", "correlation"]
"""What is shrunk: the covariance, or the correlation, which knows no units of features."""

_UNEVEN = 10  # times the middle spread within classes, from which the widest feature would be most of a covariance
_BLOCK = 1 << 25
"""Numbers in double precision held at once: 256 MiB."""


@dataclass(frozen=True)
class ClassSums:
    """What whitening needs of labelled rows: counts, means and the scatter within classes, in float64.

    Parameters
    ----------
    mean : float64 tensor of shape (feature,)
        Of all rows.
    scatter : float64 tensor of shape (feature, feature)
        Sum over all rows of the outer product of what lies between a row and the mean of its class.
    between : float64 tensor of shape (feature, feature)
        Sum over all rows of the outer product of what lies between the mean of its class and that of all rows.
    n : int
        Number of rows.
    n_classes : int
        Number of different labels.
    within : float64 tensor of shape (example, feature), optional
        Each row less the mean of its class, where there are at most half as many rows as features: they lie along few
        directions, which are found from them in a small part of the time.
    """

    mean: Tensor
    scatter: Tensor
    between: Tensor
    n: int
    n_classes: int
    within: Tensor | None = None

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the covariance; those that are left out are 0. The mean of all is 1."""
        return self._axes(self.scatter.diagonal().mean().sqrt().expand(len(self.scatter)))

    @cached_property
    def spread(self) -> Tensor:
        """Deviation of each feature within classes, shape (feature,); 1 for one that does not vary there."""
        found = (self.scatter.diagonal() / max(1, self.n - self.n_classes)).sqrt()
        return torch.where(found > 0, found, torch.ones_like(found))

    @cached_property
    def axes_alike(self) -> tuple[Tensor, Tensor]:
        """The same of the correlation within classes."""
        return self._axes(self.spread * max(1, self.n - self.n_classes) ** 0.5)

    def _axes(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the scatter of features that are divided by these lengths."""
        if self.within is None:
            values, vectors = torch.linalg.eigh(self.scatter / lengths / lengths[:, None])
            return values, vectors
        values, vectors = along_rows(self.within / lengths)
        return values * self.n, vectors

    @property
    def uneven(self) -> bool:
        """Whether features have units of their own: the widest varies more than ten times as much as the middle one."""
        varying = self.scatter.diagonal() > 0
        return bool(varying.any()) and float(self.spread[varying].max() / self.spread[varying].median()) > _UNEVEN

    @classmethod
    @torch.no_grad()
    def of(cls, rows: Float[Tensor, "example feature"], labels: Labels) -> Self:
        """Sums of these rows.

        Parameters
        ----------
        rows : float tensor of shape (example, feature)
            At least one.
        labels : int64 tensor of shape (example,)
            Label of each row.
        """
        classes, place = labels.unique(return_inverse=True)
        sums = torch.zeros(len(classes), rows.shape[1], dtype=torch.float64, device=rows.device)
        # A loop over classes keeps the order of summing, and so the bits, the same on every device.
        order = place.argsort(stable=True)
        sizes = torch.bincount(place, minlength=len(classes)).tolist()
        for i, members in enumerate(order.split(sizes)):
            sums[i] = rows[members].double().sum(0)
        means = sums / torch.tensor(sizes, dtype=torch.float64, device=rows.device)[:, None]
        total, scatter = torch.zeros_like(sums[0]), sums.new_zeros(rows.shape[1], rows.shape[1])
        step, within = max(1, _BLOCK // rows.shape[1]), None
        for start in range(0, len(rows), step):  # in double precision all rows would take twice their own memory
            wide = rows[start : start + step].double()
            inner = wide - means[place[start : start + step]]
            total += wide.sum(0)
            scatter += inner.T @ inner
            within = inner if len(rows) <= min(step, rows.shape[1] // 2) else None
        apart = means - total / len(rows)
        between = (apart.T * place.bincount(minlength=len(classes))) @ apart
        return cls(total / len(rows), scatter, between, len(rows), len(classes), within)


class Whitening(nn.Module):
    """The map ``z = (x - mean) @ matrix + offset`` from features to whitened features, fixed once it is made.

    Parameters
    ----------
    mean : float tensor of shape (feature,)
        Taken off first.
    matrix : float tensor of shape (feature, whitened)
        Applied to what is left.
    offset : float tensor of shape (whitened,), optional
        Added at the end. Default: nothing is.

    Attributes
    ----------
    mean, matrix, offset : float64 tensors
        As given, as buffers; ``offset`` may be None.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 4.0], [0.0, -4.0], [1.0, 4.0], [1.0, -4.0]])
    >>> white = Whitening.of(ClassSums.of(rows, torch.tensor([0, 0, 1, 1])), shrinkage=0.5)
    >>> white(rows)[:2].round(decimals=3)               # the second axis varies within classes only
    tensor([[-0.7070,  3.2660],
            [-0.7070, -3.2660]])
    """

    mean: Tensor
    matrix: Tensor
    offset: Tensor | None

    def __init__(
        self,
        mean: Float[Tensor, " feature"],
        matrix: Float[Tensor, "feature whitened"],
        offset: Float[Tensor, " whitened"] | None = None,
    ) -> None:
        super().__init__()
        if (
            matrix.ndim != 2
            or mean.shape != matrix.shape[:1]
            or (offset is not None and offset.shape != matrix.shape[1:])
            or not all(bool(it.isfinite().all()) for it in (matrix, mean, offset) if it is not None)
        ):
            raise ValueError(
                "`mean`, `matrix` and `offset` must be finite, of shapes (feature,), (feature, whitened) and "
                f"(whitened,), got {tuple(mean.shape)} and {tuple(matrix.shape)}. Make them with Whitening.of."
            )
        self.register_buffer("mean", mean.detach().double())
        self.register_buffer("matrix", matrix.detach().double())
        self.register_buffer("offset", None if offset is None else offset.detach().double())

    @classmethod
    def of(cls, sums: ClassSums, *, shrinkage: float, by: By = "covariance", lift: float = 0.0) -> Self:
        """Whitening by the inverse root of the shrunk covariance within classes.

        Parameters
        ----------
        sums : ClassSums
            Of the training rows.
        shrinkage : float in (0, 1]
            Weight of a multiple of the identity in ``(1 - shrinkage) S + shrinkage tr(S) / d I``; at 1 features are
            centred and scaled alike, and no direction is preferred.
        by : {"covariance", "correlation"}, default "covariance"
            With ``correlation`` each feature is first divided by its spread within classes, so that units do not
            matter; at a shrinkage of 1 that is all.
        lift : float, default 0.0
            Length of a constant last feature, in root mean squares of the lengths of whitened rows; 0 adds none. Rows
            are compared by direction alone, and near the middle of few features directions say nothing: beside a
            constant, a row's length is a part of its direction.

        Notes
        -----
        Regularised discriminant analysis (Friedman, "Regularized Discriminant Analysis", 1989, eq. 18) keeps the
        covariance shared by the classes and shrinks it towards a multiple of the identity. The roots of both kinds are
        ZCA and ZCA-cor of Kessy, Lewin and Strimmer ("Optimal whitening and decorrelation", 2018, section 3).
        """
        if not 0 < shrinkage <= 1:
            raise ValueError(f"`shrinkage` must lie in (0, 1], got {shrinkage}. 0.1 keeps most of the covariance.")
        if by not in get_args(By):
            raise ValueError(f"`by` must be covariance or correlation, got {by!r}. Pass correlation for mixed units.")
        if lift < 0:
            raise ValueError(f"`lift` must be >= 0, got {lift}. 1 is as long as the rows are.")
        matrix = _matrix(sums, shrinkage, by)
        if lift == 0:
            return cls(sums.mean, matrix)
        length = ((sums.scatter + sums.between) @ matrix * matrix).sum().div(sums.n).sqrt()
        offset = torch.zeros(matrix.shape[1] + 1, dtype=torch.float64, device=matrix.device)
        offset[-1] = lift * torch.where(length > 0, length, torch.ones_like(length))
        return cls(sums.mean, torch.cat([matrix, torch.zeros_like(matrix[:, :1])], 1), offset)

    @property
    def width(self) -> int:
        """Number of whitened features."""
        return self.matrix.shape[1]

    def forward(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch whitened"]:
        """Whitened features of the same kind of float.

        Computed in float64: rounded to float32 afterwards, a row gets the same bits alone and in a batch.
        """
        with torch.autocast(x.device.type, enabled=False):
            white = (x.double() - self.mean) @ self.matrix
            white = white if self.offset is None else white + self.offset
            return white.to(torch.promote_types(x.dtype, torch.float32))

    def directions(self, weights: Float[Tensor, "slot whitened"]) -> Float[Tensor, "slot feature"]:
        """Directions in the features before: up to a constant, ``x @ directions.T`` is ``z @ weights.T``."""
        return (weights.double() @ self.matrix.T).to(weights.dtype)


def _matrix(sums: ClassSums, shrinkage: float, by: By) -> Tensor:
    """The inverse root of what is shrunk."""
    if by == "covariance" and (shrinkage == 1 or float(sums.scatter.diagonal().mean()) <= 0):  # or classes are points
        return torch.eye(len(sums.scatter), dtype=torch.float64, device=sums.scatter.device)
    if shrinkage == 1:
        return (1 / sums.spread).diag()
    values, vectors = sums.axes if by == "covariance" else sums.axes_alike
    shrunk = ((1 - shrinkage) * values + shrinkage).clamp_min(np.finfo(np.float64).eps)
    # The symmetric root leaves the axes where they were, as the identity does at a shrinkage of 1.
    if len(values) < len(vectors):  # along the other directions nothing varies, and the shrinkage is all there is
        root: Tensor = (vectors * (shrunk.rsqrt() - float(shrinkage) ** -0.5)) @ vectors.T
        root.diagonal().add_(float(shrinkage) ** -0.5)
    else:
        root = (vectors / shrunk.sqrt()) @ vectors.T
    return root if by == "covariance" else root / sums.spread[:, None]
