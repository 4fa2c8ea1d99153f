"""Explicit edits: the only way to change an answer that a slot gave, each with the list of what it changes.

A slot is named by its number, its row in the head, which is what predictions show; there is no second numbering. Only
`delete` changes numbers: the slots behind the deleted ones move up. So a number belongs to the generation it was read
in, and `slots.model.comparison` finds a slot again by its vectors, not by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch

from slots.errors import UsageError
from slots.head.decision import decide
from slots.labels import check_name
from slots.model.comparison import answer_names
from slots.model.slot_model import SlotModel
from slots.model.transaction import all_or_nothing
from slots.shapes import Ids
from slots.storage.generations import Generation


@dataclass(frozen=True)
class ChangedExample:
    """A remembered example whose answer an edit changes.

    Parameters
    ----------
    slot, place : int
        The slot that remembers it (its number before the edit), and its place among the slot's examples.
    before, after : str
        The answers, as `slots.model.comparison.answer_names` gives them.
    edited : bool
        Whether the slot is one of those the edit was about; the others are changed in passing.
    """

    slot: int
    place: int
    before: str
    after: str
    edited: bool


@dataclass(frozen=True)
class EditReport:
    """What an edit did.

    Parameters
    ----------
    what : str
        relabel, merge or delete.
    generation : int
        Number of the new generation.
    slots : tuple of int
        The slots edited, by their numbers before the edit.
    labels_before : tuple of str
        Their labels.
    label_after : str or None
        The label they have now; None when they are gone.
    n_remembered : int
        Remembered examples that were asked before and after.
    changed : tuple of ChangedExample
        Those of them that are answered otherwise from now on.
    """

    what: str
    generation: int
    slots: tuple[int, ...]
    labels_before: tuple[str, ...]
    label_after: str | None
    n_remembered: int
    changed: tuple[ChangedExample, ...]

    @property
    def n_in_passing(self) -> int:
        """Changed examples of slots that the edit was not about."""
        return sum(not it.edited for it in self.changed)


def relabel(model: SlotModel, slots: Sequence[int], name: str) -> EditReport:
    """Give slots another label.

    Parameters
    ----------
    model : SlotModel
        Changed in place, all at once.
    slots : sequence of int
        Their numbers, as ``slots predict`` shows them; these stay as they are.
    name : str
        A label of the model, or a new one, which gets the next id.

    Returns
    -------
    EditReport

    Raises
    ------
    UsageError
        If there is no such slot or the name is empty.
    DataError
        If the name holds half of a character.

    Notes
    -----
    A slot keeps its caps and its generation, so it goes on answering what it answered, with the new label. What was
    counted for the old label on held-out data is forgotten. To name a cluster under its own id, use `merge`.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], dtype=np.float32)
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
    >>> done = relabel(model, [1], "cat")
    >>> done.labels_before, done.label_after, model.class_name(int(model.predict(x[3:]).labels[0]))
    (('1',), 'cat', 'cat')
    """
    rows = _rows(model, slots)
    if not name.strip():
        raise UsageError("`name` must not be empty, got an empty label. Name the class.")

    nameless = _nameless(model, rows)

    def change() -> None:
        _move(model, rows, model.label_id(name, create=True))
        _let_vote(model, nameless)

    return _edit(model, "relabel", rows, name, change)


def merge(model: SlotModel, names: Sequence[str], into: str) -> EditReport:
    """Make one label of several: all their slots get the label ``into``. The slots themselves are not merged.

    Naming a cluster is the same with one name. Where ``into`` is new, the first label's id goes on under that name;
    the other ids stay taken, without slots.

    Parameters
    ----------
    model : SlotModel
        Changed in place, all at once.
    names : sequence of str
        Labels or clusters of the model, for example ``["cluster 12", "cluster 15"]``.
    into : str
        A label of the model, or a new one.

    Returns
    -------
    EditReport

    Raises
    ------
    UsageError
        If a name is unknown, or ``into`` is empty.
    DataError
        If ``into`` holds half of a character.
    """
    if not names:
        raise UsageError("`names` must hold at least one label, got none. Name what is to be merged.")
    if not into.strip():
        raise UsageError("`into` must not be empty, got an empty label. Name the class.")
    labels = [model.label_id(name) for name in names]
    rows = np.flatnonzero(np.isin(model.head.labels.cpu().numpy(), labels)).astype(np.int64)

    nameless = _nameless(model, rows)

    def change() -> None:
        known = [model.class_name(label) for label in range(model.n_labels)]
        if into not in known:  # the first id goes on under the new name
            known[labels[0]] = check_name(into, "into")
            model.class_names = tuple(known)
            model.clusters = model.clusters - {labels[0]}
        _move(model, rows, model.label_id(into))
        _let_vote(model, nameless)

    return _edit(model, "merge", rows, into, change)


def delete(model: SlotModel, slots: Sequence[int]) -> EditReport:
    """Forget slots; those behind them move up. What only they matched is unmatched from now on.

    Their labels stay taken: no id is given out twice.

    Parameters
    ----------
    model : SlotModel
        Changed in place, all at once.
    slots : sequence of int
        Their numbers, as ``slots predict`` shows them.

    Returns
    -------
    EditReport

    Raises
    ------
    UsageError
        If there is no such slot, or none would be left.
    """
    rows = _rows(model, slots)
    if len(rows) == model.head.n_slots:
        raise UsageError(f"`slots` must leave at least one slot, got all {len(rows)}. Remove the model folder instead.")

    def change() -> None:
        keep = np.setdiff1d(np.arange(model.head.n_slots), rows)
        mask = torch.zeros(model.head.n_slots, dtype=torch.bool, device=model.device)
        mask[torch.from_numpy(keep)] = True
        model.head.drop_slots(mask)
        if model.exemplar_features is not None:
            model.exemplar_features = model.exemplar_features[torch.from_numpy(keep)]
        if model.thumbnails is not None:
            model.thumbnails = model.thumbnails[keep]
        if model.exemplar_ids is not None:
            model.exemplar_ids = model.exemplar_ids[keep]
        model.clusters = model.clusters & set(model.head.labels.tolist())

    return _edit(model, "delete", rows, None, change)


def _move(model: SlotModel, rows: Ids, label: int) -> None:
    """Give slots a label id; a cluster that has no slots any more is none."""
    head = model.head
    places = torch.from_numpy(rows).to(model.device)
    before = set(head.labels[places].tolist())
    head.held_out[places[head.labels[places] != label]] = 0
    head.relabel_slots(places, label)
    for gone in before - set(head.labels.tolist()):
        model.rehearsal = None if model.rehearsal is None else model.rehearsal.relabelled(gone, label)
        head.recall = None if head.recall is None else head.recall.relabelled(gone, label)
    model.clusters = model.clusters & set(head.labels.tolist())


def _nameless(model: SlotModel, rows: Ids) -> Ids:
    """Those of the slots that stand for a cluster without a name."""
    labels = model.head.labels.cpu().numpy()[rows]
    return rows[np.isin(labels, list(model.clusters))]


def _let_vote(model: SlotModel, rows: Ids) -> None:
    """Slots of a cluster that has got a name take part in the guess where nothing matches, as labelled ones do."""
    head = model.head
    named = np.setdiff1d(rows, _nameless(model, rows))
    if bool(head.pooled.any()):  # otherwise all slots vote anyway
        head.pooled[torch.from_numpy(named).to(model.device)] = True


def _edit(model: SlotModel, what: str, rows: Ids, after: str | None, change: Callable[[], None]) -> EditReport:
    """Do it, with the answers to remembered examples before and after, and a line of history."""
    before_names = tuple(model.class_name(int(label)) for label in model.head.labels[torch.from_numpy(rows)])
    remembered = model.exemplar_features
    before = stored_answers(model, remembered)
    with all_or_nothing(model):
        change()
        later = stored_answers(model, remembered)
    changed = tuple(
        ChangedExample(slot, place, name, later[slot, place], bool(np.isin(slot, rows)))
        for (slot, place), name in before.items()
        if later[slot, place] != name
    )
    number = model.generation + 1
    shown = ", ".join(map(str, rows[:8].tolist())) + (", ..." if len(rows) > 8 else "")
    figures = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "detail": f"slots {shown}" + (f" to {after}" if after else ""),
        "slots": rows.tolist(),
        "labels_before": list(before_names),
        "label_after": after,
        "changed_examples": len(changed),
    }
    model.history.append(Generation(number, what, model.head.n_slots, figures))
    return EditReport(what, number, tuple(rows.tolist()), before_names, after, len(before), changed)


def stored_answers(model: SlotModel, remembered: torch.Tensor | None) -> dict[tuple[int, int], str]:
    """Answer to each remembered example, by slot and place, as in `ChangedExample`.

    Parameters
    ----------
    model : SlotModel
        Asked as it is now.
    remembered : float tensor of shape (slot, exemplar, feature), optional
        Remembered features, zero rows where there are none; None for nothing remembered.
    """
    if remembered is None or model.head.n_slots == 0:
        return {}
    slot, place = (remembered != 0).any(2).nonzero(as_tuple=True)
    answers = decide(remembered[slot, place][:, None].float().to(model.device), model.head.caps())
    return dict(zip(zip(slot.tolist(), place.tolist(), strict=True), answer_names(model, answers), strict=True))


def _rows(model: SlotModel, slots: Sequence[int]) -> Ids:
    rows = np.unique(np.asarray(list(slots), np.int64))
    if len(rows) == 0 or rows[0] < 0 or rows[-1] >= model.head.n_slots:
        raise UsageError(
            f"`slots` must be numbers from 0 to {model.head.n_slots - 1}, got {list(slots)}. slots predict shows them."
        )
    return rows
