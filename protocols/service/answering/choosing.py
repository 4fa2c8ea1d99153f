"""Which slots of a model are meant, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from protocols.service.answering.loaded import Loaded
from slots.shapes import Ids

Order = Literal["label", "size", "newest", "lately"]
"""What comes first: the labels by id, the slots of most examples, those made last, those that answered most of late."""


@dataclass(frozen=True)
class Wanted:
    """Which slots.

    Parameters
    ----------
    label : str, optional
        Name of their label.
    made_by : int, optional
        The generation that made them.
    hits : int, default 0
        Training examples that they match at least (count).
    order : {"label", "size", "newest", "lately"}
        What comes first; slots that are equal in it come by label, the largest first.
    """

    label: str | None = None
    made_by: int | None = None
    hits: int = 0
    order: Order = "label"


def chosen(current: Loaded, lately: Ids, wanted: Wanted) -> Ids:
    """Numbers of the slots that are wanted, in their order.

    Parameters
    ----------
    current : Loaded
        Whose slots.
    lately : int64 array of shape (slot,)
        Latest answers of each slot.
    wanted : Wanted
        Which.

    Returns
    -------
    int64 array of shape (chosen slot,)
    """
    head = current.model.head
    labels, made, sizes = (it.cpu().numpy() for it in (head.labels, head.generations, head.hits))
    keep = sizes >= wanted.hits
    if wanted.label is not None:
        keep &= np.isin(labels, [number for number, name in enumerate(current.names) if name == wanted.label])
    if wanted.made_by is not None:
        keep &= made == wanted.made_by
    first = {"label": labels, "size": -sizes, "newest": -made, "lately": -lately}[wanted.order]
    rows = np.lexsort((np.arange(len(labels)), -sizes, labels, first))
    found: Ids = rows[keep[rows]].astype(np.int64)
    return found
