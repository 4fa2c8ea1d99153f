"""What ``slots explain`` was asked and measured, as it is printed and as JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ArgumentRow:
    """One argument for one unit, as it is printed.

    Parameters
    ----------
    name, null : str
        The argument, and what its null shuffles.
    statistic, null_mean, null_q01, null_q99, p_value, effect : float or None
        As `backbones.explanations.circuits.Result` has them; None where nothing was measured.
    control : float or None
        The statistic of the same unit of the network with shuffled weights.
    counts : bool
        Whether it is significant at a false discovery rate of 5 % among all arguments on the page.
    why_not : str
        Why nothing was measured; else empty.
    """

    name: str
    null: str
    statistic: float | None
    null_mean: float | None
    null_q01: float | None
    null_q99: float | None
    p_value: float | None
    effect: float | None
    control: float | None
    counts: bool
    why_not: str


@dataclass(frozen=True)
class ExplainSummary:
    """What ``slots explain`` measured and wrote.

    Parameters
    ----------
    schema : int
        Version of this record as JSON.
    model, page : str
        The folder, and the page.
    data : str
        What it was measured on.
    n_images : int
        Inputs of it.
    permutations, seed : int
        Draws of each null, and what they were drawn from.
    units : dict of str to tuple of ArgumentRow
        By name.
    """

    schema: int
    model: str
    page: str
    data: str
    n_images: int
    permutations: int
    seed: int
    units: dict[str, tuple[ArgumentRow, ...]]


@dataclass(frozen=True)
class Asked:
    """How units are measured.

    Parameters
    ----------
    images : int, default 500
        Inputs, at most; drawn at random.
    permutations : int, default 199
        Draws of each null.
    seed : int, default 0
        Of all draws.
    """

    images: int = 500
    permutations: int = 199
    seed: int = 0
