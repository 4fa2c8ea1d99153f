"""`build`: a backbone from its name, the shape of its inputs and its options."""

from __future__ import annotations

import inspect
from typing import Any, Final, overload

from backbones.base import AbstractBackbone
from backbones.lipschitz.net import Lipschitz
from backbones.nets.cnn import Cnn
from backbones.nets.directional import Directional
from backbones.nets.disjunction import Disjunction
from backbones.nets.explor import Explor
from backbones.nets.gumbel import Gumbel
from backbones.nets.pixels import Pixels
from backbones.nets.positive import Positive
from backbones.nets.pretrained import Pretrained
from backbones.nets.unfolding import Unfolding
from backbones.parts.net import Parts
from backbones.text.encoder import PREFIX, TextBackbone, is_text_name

BACKBONES: Final[dict[str, type[AbstractBackbone]]] = {
    "pixels": Pixels,
    "cnn": Cnn,
    "positive": Positive,
    "explor": Explor,
    "unfolding": Unfolding,
    "disjunction": Disjunction,
    "directional": Directional,
    "gumbel": Gumbel,
    "lipschitz": Lipschitz,
    "parts": Parts,
    "pretrained": Pretrained,
}
"""Every backbone of pictures by its name."""


@overload
def build(name: str, *, input_shape: tuple[int, int, int], **options: Any) -> AbstractBackbone: ...


@overload
def build(name: str, *, input_shape: tuple[()] = (), **options: Any) -> TextBackbone: ...


def build(
    name: str, *, input_shape: tuple[int, int, int] | tuple[()] = (), **options: Any
) -> AbstractBackbone | TextBackbone:
    """Make a backbone with fresh weights, drawn from torch's global generator.

    Parameters
    ----------
    name : str
        One of `BACKBONES`; or ``text:NAME``, a sentence encoder on this machine (`TextBackbone` says which names).
    input_shape : tuple of three int
        Channels, height and width of one input, each at least 1. Left out for text.
    **options
        The backbone's options, as JSON values; see its class.

    Returns
    -------
    AbstractBackbone or TextBackbone
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
    if is_text_name(name):
        name, options = TextBackbone.name, {"model": name.removeprefix(PREFIX), **options}
    if name not in BACKBONES and name != TextBackbone.name:
        raise ValueError(f"`name` must be one of {', '.join(BACKBONES)}, text:NAME, got {name!r}. Choose one of them.")
    kind = TextBackbone if name == TextBackbone.name else BACKBONES[name]
    known = [key for key in inspect.signature(kind).parameters if key != "input_shape"]
    unknown = [key for key in options if key not in known]
    if unknown:
        choices = f"one of {', '.join(known)}" if known else "left out"
        raise ValueError(f"An option of {name} must be {choices}, got {', '.join(unknown)}. Remove or rename it.")
    if isinstance(kind, type) and issubclass(kind, TextBackbone):
        return kind(**options)
    return kind(input_shape, **options)  # type: ignore[arg-type]  # checked there
