"""All or nothing: a model in memory is changed whole, or left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slots.generations import Generation
from slots.hashing import IncrementalNeuralHashing


class Changeable(Protocol):
    """What updates and edits change of a model; `slots.SlotModel` has it."""

    head: IncrementalNeuralHashing
    class_names: tuple[str, ...]
    clusters: frozenset[int]
    support: Tensor | None
    thumbnails: npt.NDArray[np.uint8] | None
    history: list[Generation]


@contextmanager
def all_or_nothing(model: Changeable) -> Iterator[None]:
    """Put the model back as it was if anything goes wrong, an interrupt included.

    Parameters
    ----------
    model : Changeable
        Changed inside the block. Tensors and arrays beside the head are replaced there, not written into.
    """
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    names, clusters, support, thumbnails = model.class_names, model.clusters, model.support, model.thumbnails
    history = list(model.history)
    try:
        yield
    except BaseException:
        model.head.load_state_dict(head)
        model.class_names, model.clusters, model.support, model.thumbnails = names, clusters, support, thumbnails
        model.history[:] = history
        raise
