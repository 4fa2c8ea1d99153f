"""Whether two networks have come to the same features: each measure beside shuffled inputs and an untrained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from backbones.checks import check_choice, check_count
from backbones.explanations.circuits.likeness.similarity import cka, matching, procrustes, svcca
from backbones.explanations.circuits.nulls import Result, against

MEASURES: Final[dict[str, Callable[[Tensor, Tensor], float]]] = {
    "cka": cka,
    "svcca": svcca,
    "procrustes": procrustes,
    "matching": lambda a, b: matching(a, b, soft=True).score,
}


@dataclass(frozen=True)
class Likeness:
    """One measure of two representations, with what it is compared with.

    Parameters
    ----------
    measure : str
        One of `MEASURES`.
    found : Result
        The value, and its null: the same with the inputs of ``b`` shuffled.
    control : float or None
        The value of ``a`` and an untrained network; None where none was given.
    """

    measure: str
    found: Result
    control: float | None


def universality(
    a: Float[Tensor, "sample unit"],
    b: Float[Tensor, "sample other"],
    *,
    control: Float[Tensor, "sample unit"] | None = None,
    measures: Sequence[str] = tuple(MEASURES),
    permutations: int = 99,
    seed: int = 0,
) -> list[Likeness]:
    """Compare two representations of the same inputs by several measures.

    Parameters
    ----------
    a, b : float tensors of shape (sample, unit) and (sample, other)
        Activations of two networks for the same inputs.
    control : float tensor of shape (sample, unit), optional
        Of an untrained network of the same architecture: much of what two trained ones share, these share as well.
    measures : sequence of str
        Names in `MEASURES`.
    permutations : int, default 99
        Shuffles of the inputs of ``b`` for the null (count, >= 1).
    seed : int, default 0
        Of the shuffles.

    Returns
    -------
    list of Likeness
        In the order of ``measures``.

    Raises
    ------
    ValueError
        If a measure is unknown, or refuses what it is given.

    Examples
    --------
    >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> [it.found.p_value for it in universality(x, x.flip(1), permutations=9)]
    [0.1, 0.1, 0.1, 0.1]
    """
    check_count("permutations", permutations)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(b), generator=generator).to(b.device) for _ in range(permutations)]
    found = []
    for name in measures:
        check_choice("measures", name, tuple(MEASURES))
        measure = MEASURES[name]
        null = [measure(a, b[order]) for order in orders]
        found.append(Likeness(name, against(measure(a, b), null), None if control is None else measure(a, control)))
    return found
