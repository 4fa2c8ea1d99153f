"""How alike two networks see the same inputs: CKA, SVCCA, Procrustes and the matching of units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

INPUTS_PER_DIMENSION: Final = 10
"""SVCCA needs more inputs than so many for each direction: below, even noise has large canonical correlations."""

_DEAD: Final = 1e-12
_ROUNDING: Final = 1e-10


def cka(a: Float[Tensor, "sample ..."], b: Float[Tensor, "sample ..."], *, unbiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations of the same inputs.

    Parameters
    ----------
    a, b : float tensors of shape (sample, ...)
        Activations of two layers, a row an input in the same order; further axes are flattened, and units may be of
        different number.
    unbiased : bool, default True
        With the unbiased estimator of HSIC, which is 0 on average for independent representations and may be a little
        below 0. The biased one grows towards 1 the fewer inputs there are for a unit.

    Returns
    -------
    float
        1 for representations that are equal up to rotation, scale and shift; in [0, 1] where biased.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than 4 inputs, or a representation does not vary enough to be
        compared.

    Notes
    -----
    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` [1]_ with the estimator of [2]_. For linear kernels of centred rows
    their sums vanish, which leaves
    ``n (n - 3) HSIC = |A'B|^2 - n / (n - 2) sum_i k_ii l_ii + sum k_ii sum l_ii / ((n - 1) (n - 2))``.

    References
    ----------
    .. [1] S. Kornblith et al., "Similarity of neural network representations revisited", 2019.
    .. [2] L. Song et al., "Feature selection via dependence maximization", 2012, eq. 5.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(cka(x, 2 * x.flip(1) + 1), 6)
    1.0
    """
    first, second = _rows(a, b, least=4)
    hsic = _unbiased_hsic if unbiased else _biased_hsic
    own = hsic(first, first), hsic(second, second)
    sizes = [float(part.square().sum(1).mean()) ** 2 for part in (first, second)]
    if any(it <= _ROUNDING * size for it, size in zip(own, sizes, strict=True)):  # all inputs equally far apart
        raise ValueError(
            f"`a` and `b` must vary with the inputs, got an alignment of {min(own):.3g} of one with itself. "
            "Give more inputs, or layers that are not constant."
        )
    return hsic(first, second) / float(np.sqrt(own[0] * own[1]))


def svcca(a: Float[Tensor, "sample ..."], b: Float[Tensor, "sample ..."], *, keep: float = 0.99) -> float:
    """Mean canonical correlation of the leading directions of two representations.

    Parameters
    ----------
    a, b : float tensors of shape (sample, ...)
        As for `cka`.
    keep : float in (0, 1], default 0.99
        Share of the variance of each that its leading directions hold.

    Returns
    -------
    float
        In [0, 1]; 1 where the smaller set of directions is a linear function of the other.

    Raises
    ------
    ValueError
        If there are not more than ten inputs for each direction kept, or `cka` would refuse them.

    Notes
    -----
    M. Raghu et al., "SVCCA", 2017. Canonical correlations of few inputs are large for any two representations,
    so that too few are refused.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(svcca(x, x @ torch.tensor([[1.0, 2, 0], [0, 1, 0], [1, 0, 3]])), 6)
    1.0
    """
    if not 0 < keep <= 1:
        raise ValueError(f"`keep` must lie in (0, 1], got {keep}. 0.99 is usual.")
    bases = [_leading(part, keep) for part in _rows(a, b, least=4)]
    most = max(basis.shape[1] for basis in bases)
    if len(a) <= INPUTS_PER_DIMENSION * most:
        raise ValueError(
            f"SVCCA must have more than {INPUTS_PER_DIMENSION} inputs for each of {most} directions, got {len(a)}. "
            f"Give more than {INPUTS_PER_DIMENSION * most}, keep less variance, or take the unbiased CKA."
        )
    return float(torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1).mean())


def procrustes(a: Float[Tensor, "sample ..."], b: Float[Tensor, "sample ..."]) -> float:
    """How well one representation, turned and scaled, lies on the other.

    Parameters
    ----------
    a, b : float tensors of shape (sample, ...)
        As for `cka`.

    Returns
    -------
    float
        The nuclear norm of ``A'B`` after centring and scaling both to norm 1, in [0, 1]. The Procrustes distance is
        the root of ``2 - 2 procrustes``, and the angular one its arc cosine.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than 2 inputs, or a representation is constant.

    Notes
    -----
    A. Williams et al., "Generalized shape metrics on neural representations", 2021. It is far from 0 also for
    independent representations, so read it beside a null.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(procrustes(x, 2 * x.flip(1) + 1), 6)
    1.0
    """
    unit = [_compact(part / part.norm()) for part in _rows(a, b, least=2)]
    return float(torch.linalg.svdvals(unit[0].T @ unit[1]).sum().clamp(max=1))


@dataclass(frozen=True)
class Matching:
    """Which unit of one representation stands for which of the other.

    Parameters
    ----------
    score : float
        Mean correlation under the matching, in [-1, 1].
    partners : int64 array of shape (unit of a,)
        One-to-one: the unit of ``b``, or -1 where there are too few. Soft: the unit that gets most of its mass.
    correlations : float array of shape (unit of a,)
        With the partner; 0 where there is none.
    """

    score: float
    partners: Int[np.ndarray, " unit"]
    correlations: Float[np.ndarray, " unit"]


def matching(a: Float[Tensor, "sample unit"], b: Float[Tensor, "sample other"], *, soft: bool = False) -> Matching:
    """Match the units of two representations by the correlation of their activations.

    Parameters
    ----------
    a, b : float tensors of shape (sample, unit) and (sample, other)
        A row an input in the same order. Units that never change have correlation 0.
    soft : bool, default False
        Share each unit out among others, so that all take part where the numbers differ. Default: one to one.

    Returns
    -------
    Matching

    Raises
    ------
    ValueError
        If the shapes do not fit, or there are fewer than 2 inputs.

    Notes
    -----
    One-to-one: Hungarian algorithm [1]_. Soft: optimal transport between units of equal mass [2]_; equal to one-to-one
    for equal numbers. Chance is high where units are many and inputs few: read it beside a null.

    References
    ----------
    .. [1] Y. Li et al., "Convergent learning", 2016.
    .. [2] M. Khosla and A. Williams, "Soft matching distance", 2024.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> matching(x, x[:, [2, 0, 1]]).partners.tolist()
    [1, 2, 0]
    """
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(
            f"`a` and `b` must have shape (sample, unit), got {tuple(a.shape)} and {tuple(b.shape)}. "
            "Pool maps over places, or list each place as a sample."
        )
    first, second = (_standard(part) for part in _rows(a, b, least=2, flat=True))
    corr = (first.T @ second).cpu().numpy()
    return _soft_matching(corr) if soft and corr.shape[0] != corr.shape[1] else _one_to_one(corr)


def _one_to_one(corr: Float[np.ndarray, "unit other"]) -> Matching:
    """The assignment of largest total correlation."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(corr, maximize=True)
    partners = np.full(len(corr), -1, np.int64)
    partners[rows] = columns
    found = np.zeros(len(corr))
    found[rows] = corr[rows, columns]
    return Matching(float(corr[rows, columns].mean()), partners, found)


def _soft_matching(corr: Float[np.ndarray, "unit other"]) -> Matching:
    """The transport plan of largest total correlation between uniform masses."""
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = corr.shape
    sums = [kron(eye_array(n), np.ones((1, m))).tocsr(), kron(np.ones((1, n)), eye_array(m)).tocsr()]
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    solved = linprog(-corr.ravel(), A_eq=vstack(sums), b_eq=masses, method="highs")
    plan = solved.x.reshape(n, m)
    partners = plan.argmax(1)
    return Matching(float((plan * corr).sum()), partners, corr[np.arange(n), partners])


def _rows(a: Tensor, b: Tensor, *, least: int, flat: bool = False) -> tuple[Tensor, Tensor]:
    """Both as centred rows in double precision; what does not vary is refused unless ``flat``."""
    if a.ndim < 2 or b.ndim < 2 or len(a) != len(b) or len(a) < least:
        raise ValueError(
            f"`a` and `b` must have shape (sample, ...) with the same {least} or more samples, got {tuple(a.shape)} "
            f"and {tuple(b.shape)}. Give both the same inputs."
        )
    rows = [part.detach().flatten(1).double() for part in (a, b)]
    centred = [part - part.mean(0) for part in rows]
    for name, part, whole in zip("ab", centred, rows, strict=True):
        if not bool(torch.isfinite(part).all()):
            raise ValueError(f"`{name}` must be finite, got NaN or infinity. Look where it comes from.")
        if not flat and float(part.norm()) <= _DEAD * max(float(whole.norm()), 1e-300):
            raise ValueError(f"`{name}` must vary with the inputs, got a constant. Take another layer or other inputs.")
    return centred[0], centred[1]


def _inner(a: Tensor, b: Tensor) -> float:
    """``|A'B|^2``, by features or by inputs, whichever are fewer."""
    if a.shape[1] * b.shape[1] <= len(a) ** 2:
        return float((a.T @ b).square().sum())
    return float(((a @ a.T) * (b @ b.T)).sum())


def _unbiased_hsic(a: Tensor, b: Tensor) -> float:
    n = len(a)
    k, m = a.square().sum(1), b.square().sum(1)
    total = _inner(a, b) - n / (n - 2) * float((k * m).sum()) + float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
    return total / (n * (n - 3))


def _biased_hsic(a: Tensor, b: Tensor) -> float:
    return _inner(a, b) / (len(a) - 1) ** 2


def _compact(a: Tensor) -> Tensor:
    """The same rows up to a rotation, in no more columns than rows."""
    if a.shape[1] <= len(a):
        return a
    triangle: Tensor = torch.linalg.qr(a.T, mode="r").R
    return triangle.t()


def _leading(a: Tensor, keep: float) -> Tensor:
    """Orthonormal columns that span the directions of most variance."""
    u: Tensor
    u, s, _ = torch.linalg.svd(_compact(a), full_matrices=False)
    share = s.square().cumsum(0) / s.square().sum()
    count = min(1 + int((share < keep - _DEAD).sum()), int((s > 1e-10 * s[0]).sum()))
    return u[:, :count]


def _standard(a: Tensor) -> Tensor:
    """Columns of norm 1; those that do not vary are 0."""
    norms = a.norm(dim=0)
    return torch.where(norms > _DEAD * norms.max().clamp_min(1e-300), a / norms.clamp_min(1e-300), torch.zeros_like(a))
