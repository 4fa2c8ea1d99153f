"""All or nothing: a model in memory is changed whole, or left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.example_ids import remembered_ids
from slots.head.hashing import IncrementalNeuralHashing
from slots.rehearsal.memory import RehearsalMemory
from slots.storage.generations import Generation
from slots.update.planned import NewSlots


class Changeable(Protocol):
    """What updates and edits change of a model; `slots.SlotModel` has it."""

    head: IncrementalNeuralHashing
    class_names: tuple[str, ...]
    clusters: frozenset[int]
    exemplar_features: Tensor | None
    thumbnails: npt.NDArray[Any] | None
    exemplar_ids: npt.NDArray[Any] | None
    rehearsal: RehearsalMemory | None
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
    names, clusters = model.class_names, model.clusters
    features, images, memory = model.exemplar_features, model.thumbnails, model.rehearsal
    ids, recall = model.exemplar_ids, model.head.recall
    history = list(model.history)
    try:
        yield
    except BaseException:
        model.head.load_state_dict(head)
        model.head.recall = recall
        model.class_names, model.clusters = names, clusters
        model.exemplar_features, model.thumbnails, model.rehearsal = features, images, memory
        model.exemplar_ids = ids
        model.history[:] = history
        raise


def commit(model: Changeable, new: NewSlots, ids: npt.NDArray[Any] | None = None) -> None:
    """Put new slots behind the present ones, all or nothing.

    Parameters
    ----------
    model : Changeable
        The model that they were planned for.
    new : NewSlots
        As `slots.update.plan_update` made them.
    ids : object array of shape (example,), optional
        Of the new data, as `slots.features.example_ids.check_example_ids` gives them. Default: none.
    """
    with all_or_nothing(model):
        _join(model, new, ids)


def _join(model: Changeable, new: NewSlots, ids: npt.NDArray[Any] | None) -> None:
    head, first = model.head, model.head.n_slots
    head.add_slots(
        new.weights,
        new.labels,
        centres=new.centres,
        precision_thresholds=new.precision_thresholds,
        support_thresholds=new.support_thresholds,
        exemplars=new.exemplars,
        generation=new.line.number,
        pooled=False,
    )
    head.pooled[first:] = new.pooled
    head.hits[first:] = new.hits
    fresh, old = new.exemplar_features, model.exemplar_features
    if old is None:
        old = torch.zeros(first, *fresh.shape[1:], dtype=fresh.dtype)
    model.exemplar_features = torch.cat([old, fresh])
    if new.exemplar_images is not None and model.thumbnails is not None:
        model.thumbnails = np.concatenate([model.thumbnails, new.exemplar_images])
    if ids is not None or model.exemplar_ids is not None:
        exemplars = head.exemplars.cpu().numpy()
        kept = remembered_ids(None, exemplars[:first]) if model.exemplar_ids is None else model.exemplar_ids
        model.exemplar_ids = np.concatenate([kept, remembered_ids(ids, exemplars[first:])])
    if model.rehearsal is not None:
        model.rehearsal = model.rehearsal.joined(*new.told)
    if new.recall is not None:
        head.recall = new.recall
    model.class_names, model.clusters = new.known.names, new.known.clusters
    model.history.append(new.line)
