"""What a model folder may say about its backbone: which network, and nothing that lies elsewhere.

A folder may come from a stranger. So what it records builds a network; the weights are the folder's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slots.errors import ModelError

BuildBackbone = Callable[..., nn.Module]
"""``build(name, *, input_shape, **options)``, for example `backbones.build`."""

_OURS = "backbones.building"  # where `backbones.build` is from, which does nothing but build
_OWN = "own"  # the network that `backbones.nets.pretrained.Pretrained` records for a module it was given
_DIGEST = re.compile(r"[0-9a-f]{16}")
_MOST_NUMBER = 1 << 16  # widths, kernels, counts; no network of ours or of a library's comes near
_MOST_SIDE = 4096  # of the picture that a network is tried on
_MOST_INPUT = 1 << 28  # numbers of one input
_MOST_ENTRIES = 4096  # of all lists of options together


def build_recorded(
    name: Any,
    options: Any,
    *,
    input_shape: tuple[int, ...],
    weights: Mapping[str, Tensor],
    build: BuildBackbone,
) -> nn.Module:
    """The backbone that a model folder records, with the weights of the folder, in evaluation mode.

    Parameters
    ----------
    name, options
        As the header has them; nothing is taken on trust.
    input_shape : tuple of int
        Of one scaled input.
    weights : mapping of tensor
        The folder's, by name.
    build : callable
        Makes the network.

    Raises
    ------
    ModelError
        If weights lie elsewhere, or are not those of the network; or if it is a module of the user's own, and ``build``
        does not know it.
    """
    check_recorded(name, options, input_shape)
    is_ours = getattr(build, "__module__", "") == _OURS
    if is_ours and name == "pretrained" and options.get("network") == _OWN:
        raise ModelError(
            "The model's network is a module of your own, which only your code can make again. Load the model in "
            "Python: SlotModel.load(folder, build=...), with a function that returns the backbone."
        )
    if is_ours and name != "text":
        with torch.device("meta"):  # without memory, so that sizes are compared before any is taken
            outline = build(name, input_shape=input_shape, **options)
        _compare(outline.state_dict(), weights)
    backbone = build(name, input_shape=input_shape, **options)
    _compare(backbone.state_dict(), weights)
    backbone.load_state_dict(dict(weights))
    return backbone.eval()


def check_recorded(name: Any, options: Any, input_shape: Sequence[int]) -> None:
    """Refuse a record that would read elsewhere, reach the network or build what no memory holds.

    Parameters
    ----------
    name, options
        As the header has them.
    input_shape : sequence of int
        Of one scaled input.

    Raises
    ------
    ModelError
        If it is such a record, or none at all.
    """
    if not isinstance(name, str) or not isinstance(options, dict):
        raise ModelError("The model's backbone must be a name and options, got something else: it is damaged.")
    if name == "text" or name.startswith("text:"):
        _check_encoder(name, options)
    elif name == "pretrained" and options.get("weights") is not None:
        raise ModelError(
            f"The model's weights must lie in its own folder, but its header names others: {options['weights']!r:.80}. "
            "A fit records none, so it was edited: do not trust it."
        )
    if math.prod(input_shape) > _MOST_INPUT:
        raise ModelError(f"The model's inputs must have at most {_MOST_INPUT} numbers, got {tuple(input_shape)}.")
    side = options.get("size")
    if isinstance(side, int) and side > _MOST_SIDE:
        raise ModelError(f"The model's backbone must see at most {_MOST_SIDE} pixels a side, got {side}.")
    _check_numbers(options)


def _check_encoder(name: str, options: Mapping[str, Any]) -> None:
    """A sentence encoder is named with its digest and length, so that opening the model does not read it."""
    if name == "text" and "model" not in options:  # a text backbone of the caller's own
        return
    digest, features = options.get("weights"), options.get("features")
    whole = isinstance(digest, str) and _DIGEST.fullmatch(digest) and isinstance(features, int) and features >= 1
    if name != "text" or not isinstance(options.get("model"), str) or not whole:
        raise ModelError("The model's sentence encoder must be recorded with digest and length: it is damaged.")


def _check_numbers(options: Mapping[str, Any]) -> None:
    """No number beyond what networks have, and no list without end."""
    pending, seen = list(options.values()), 0
    while pending:
        value = pending.pop()
        seen += 1
        if isinstance(value, list | tuple):
            pending.extend(value[: _MOST_ENTRIES + 1])
        elif isinstance(value, dict):
            raise ModelError("The model's backbone must have numbers, words and lists as options: it is damaged.")
        elif isinstance(value, int | float) and not abs(value) <= _MOST_NUMBER:  # not-a-number, too
            raise ModelError(
                f"The model's backbone must have options of at most {_MOST_NUMBER}, got {value}: it is damaged."
            )
        if seen > _MOST_ENTRIES:
            raise ModelError(f"The model's backbone must have at most {_MOST_ENTRIES} options: it is damaged.")


def _compare(expected: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the network: others' names, shapes or kinds, or not finite."""
    if odd := sorted(expected.keys() ^ stored.keys()):
        raise ModelError(f"The stored weights must be the backbone's, but only one of the two has {odd[0]!r:.80}.")
    for name, tensor in stored.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.is_floating_point() != want.is_floating_point():
            raise ModelError(
                f"The stored weights must be the backbone's, but {name!r:.80} has shape {tuple(tensor.shape)} of "
                f"{tensor.dtype} instead of {tuple(want.shape)} of {want.dtype}."
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(f"The stored weights must be finite, but {name!r:.80} is not: the model is damaged.")
