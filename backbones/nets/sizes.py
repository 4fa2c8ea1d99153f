"""Sizes of windows that fit into maps: the default is cut to what is there, a wish that does not fit is refused."""

from __future__ import annotations

from backbones.checks import check_count


def fitting(name: str, size: int | None, default: int, sides: tuple[int, int]) -> int:
    """Side of a window on maps of these sides (pixels).

    Raises
    ------
    ValueError
        If the size is not a positive int, or larger than a side.
    """
    if size is None:
        return min(default, *sides)
    check_count(name, size)
    if size > min(sides):
        raise ValueError(
            f"`{name}` must be at most {min(sides)}, the shorter side of its input, got {size}. "
            "Leave it out for one that fits."
        )
    return size


def sides_after(sides: tuple[int, int], kernel: int, *, stride: int = 1, padding: int = 0) -> tuple[int, int]:
    """Height and width of the maps that a window makes of maps (pixels)."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return height, width
