"""`build`: a backbone from its name, the shape of its inputs and its options."""

from __future__ import annotations

import inspect
from typing import Any, Final

from backbones.base import AbstractBackbone
from backbones.nets.cnn import Cnn
from backbones.nets.directional import Directional
from backbones.nets.disjunction import Disjunction
from backbones.nets.explor import Explor
from backbones.nets.gumbel import Gumbel
from backbones.nets.pixels import Pixels
from backbones.nets.positive import Positive
from backbones.nets.pretrained import Pretrained
from backbones.nets.unfolding import Unfolding

BACKBONES: Final[dict[str, type[AbstractBackbone]]] = {
    "pixels": Pixels,
    "cnn": Cnn,
    "positive": Positive,
    "explor": Explor,
    "unfolding": Unfolding,
    "disjunction": Disjunction,
    "directional": Directional,
    "gumbel": Gumbel,
    "pretrained": Pretrained,
}
"""Every backbone by its name."""


def build(name: str, *, input_shape: tuple[int, int, int], **options: Any) -> AbstractBackbone:
    """Make a backbone with fresh weights, drawn from torch's global generator.

    Parameters
    ----------
    name : str
        One of `BACKBONES`.
    input_shape : tuple of three int
        Channels, height and width of one input, each at least 1.
    **options
        The backbone's options, as JSON values; see its class.

    Returns
    -------
    AbstractBackbone
        In training mode, float32, on the CPU.

    Raises
    ------
    ValueError
        If the name, an option or its value is unknown.

    Examples
    --------
    >>> build("pixels", input_shape=(1, 28, 28)).feature_dim
    784
    """
    if name not in BACKBONES:
        raise ValueError(f"`name` must be one of {', '.join(BACKBONES)}, got {name!r}. Choose one of them.")
    kind = BACKBONES[name]
    known = [key for key in inspect.signature(kind).parameters if key != "input_shape"]
    unknown = [key for key in options if key not in known]
    if unknown:
        choices = f"one of {', '.join(known)}" if known else "left out"
        raise ValueError(f"An option of {name} must be {choices}, got {', '.join(unknown)}. Remove or rename it.")
    return kind(input_shape, **options)
