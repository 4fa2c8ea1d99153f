"""Options are checked where a backbone or layer is made, and named in the sentence that says what is wrong."""

from __future__ import annotations

import math

from torch import Tensor


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}. Choose one of them.")


def check_sharpness(name: str, value: object) -> None:
    """Raise a ValueError unless the value is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}. 2 is a good start.")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Raise a ValueError unless the value is an int of at least ``least``."""
    if not _is_count(value, least):
        rule = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {rule}, got {value!r}. Leave it out for the default.")


def check_counts(name: str, value: object, length: int, *, least: int = 1) -> list[int]:
    """The value as a list of that many ints, each of at least ``least``.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    chosen = list(value) if isinstance(value, (list, tuple)) else []
    if not chosen or len(chosen) != length or not all(_is_count(entry, least) for entry in chosen):
        plural = f"{length} integers" if length > 1 else "1 integer"
        raise ValueError(
            f"`{name}` must be a list of {plural} of at least {least}, got {value!r}. Give one for each level."
        )
    return chosen


def check_share(name: str, value: object) -> None:
    """Raise a ValueError unless the value is a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must lie in (0, 1], got {value!r}. 0.1 is usual.")


def check_widths(widths: object, *, side: int) -> list[int]:
    """The widths as a list of positive ints, at most one more than the side can be halved.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    chosen = list(widths) if isinstance(widths, (list, tuple)) else []
    most = side.bit_length()
    if not 1 <= len(chosen) <= most or not all(_is_count(width) for width in chosen):
        raise ValueError(
            f"`widths` must be a list of 1 to {most} positive integers, got {widths!r}. "
            "Each after the first halves the picture."
        )
    return chosen


def check_inputs(x: Tensor) -> None:
    """Raise a ValueError if the batch is empty."""
    if len(x) == 0:
        raise ValueError(f"`x` must hold at least one input, got shape {tuple(x.shape)}. Leave empty batches out.")


def check_learnable(features: Tensor) -> None:
    """Raise a ValueError unless a loss on these features would reach what made them."""
    if features.ndim != 2 or not features.requires_grad:
        raise ValueError(
            f"`backbone` must give (batch, feature) with gradients, got {tuple(features.shape)}"
            f"{'' if features.requires_grad else ' without any'}. Remove no_grad from it."
        )


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
