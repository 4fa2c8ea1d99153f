"""What changed between two generations, and whether it can have changed an answer: `slots diff`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from slots.errors import ModelError
from slots.head.caps import free_radius
from slots.head.decision import decide
from slots.head.prediction import Answer, Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import Ids, RawInputs

_SLOT = ("weights", "centres", "precision_thresholds", "support_thresholds", "labels", "generations")
"""What of a slot takes part in a matched answer."""


@dataclass(frozen=True)
class ChangedAnswer:
    """An input whose matched answer is not what it was.

    Parameters
    ----------
    source : str
        ``"remembered"`` or ``"data"``.
    example : int
        Row of the data; of a remembered example its place, four a slot (`SlotModel.exemplar_features`, flattened).
    before, after : str
        The labels, as `answer_names` gives them.
    slot_before, slot_after : int
        The slots that gave them, by their numbers in each generation.
    """

    source: str
    example: int
    before: str
    after: str
    slot_before: int
    slot_after: int


@dataclass(frozen=True)
class Difference:
    """What changed from one generation to another.

    Parameters
    ----------
    old, new : int
        Numbers of the generations.
    added : tuple of int
        Slots of the new one that the old one did not have, with these vectors and thresholds.
    removed : tuple of int
        Slots of the old one that are gone or moved.
    n_disjoint : int
        Added slots whose support cap meets no old slot of another label on the sphere.
    relabelled : tuple of tuple (slot, before, after)
        By the slots' numbers in the old one.
    renamed : tuple of tuple (label id, before, after)
        Other names of labels that the old one answers with.
    proven : bool
        True: for every possible input, what the old generation matched has the same answer in the new one.
    reasons : tuple of str
        Why it is not proven; empty when it is.
    n_compared : int
        Inputs that the old generation matched, of its remembered examples and the given data.
    changed : tuple of ChangedAnswer
        Those of them whose answer is another one now.
    """

    old: int
    new: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    n_disjoint: int
    relabelled: tuple[tuple[int, str, str], ...]
    renamed: tuple[tuple[int, str, str], ...]
    proven: bool
    reasons: tuple[str, ...]
    n_compared: int
    changed: tuple[ChangedAnswer, ...]


@torch.no_grad()
def diff(old: SlotModel, new: SlotModel, x: RawInputs | None = None) -> Difference:
    """Compare two generations of a model.

    Parameters
    ----------
    old, new : SlotModel
        Generations of one model, or two that take the same inputs.
    x : array of shape (example, ...), optional
        Inputs to compare the answers on, beside the examples that the old slots remember.

    Returns
    -------
    Difference

    Raises
    ------
    ModelError
        If the two take different inputs.

    Notes
    -----
    The proof. A matched answer depends on the features of the input and on the slots of the oldest generation that
    fires, and on nothing else (`slots.head.decide`). If preprocessing, views and backbone are bit for bit the same,
    so are the features. If the old slots are the first rows of the new head, unchanged in vectors, thresholds, labels
    and generations, and every further slot has a later generation than all of them, then the oldest generation that
    fires is an old one whenever it was one before, with the same slots in the same order. So the answer is the same.
    """
    if old.preprocessing.shape != new.preprocessing.shape or old.preprocessing.kind != new.preprocessing.kind:
        raise ModelError(
            f"`new` must take the same inputs as `old`, got {new.preprocessing.shape} and {old.preprocessing.shape}. "
            "Compare generations of one model."
        )
    where = _places(old, new)
    added = np.setdiff1d(np.arange(new.head.n_slots), where[where >= 0])
    labels_old, labels_new = old.head.labels.tolist(), new.head.labels.tolist()
    relabelled = tuple(
        (int(row), old.class_name(labels_old[row]), new.class_name(labels_new[place]))
        for row, place in enumerate(where.tolist())
        if place >= 0 and labels_old[row] != labels_new[place]
    )
    renamed = tuple(
        (label, old.class_name(label), new.class_name(label))
        for label in sorted(set(labels_old))
        if old.class_name(label) != new.class_name(label)
    )
    of_features = _feature_reasons(old, new)
    reasons = (*of_features, *_slot_reasons(old, new), *(("labels have other names",) if renamed else ()))
    changed, n_compared = _changed(old, new, x, same_features=not of_features)
    return Difference(
        old=old.generation,
        new=new.generation,
        added=tuple(added.tolist()),
        removed=tuple(np.flatnonzero(where < 0).tolist()),
        n_disjoint=_n_disjoint(old, new, added),
        relabelled=relabelled,
        renamed=renamed,
        proven=not reasons,
        reasons=reasons,
        n_compared=n_compared,
        changed=changed,
    )


def answer_names(model: SlotModel, prediction: Prediction) -> list[str]:
    """Answers in words: the label, with ", ambiguous" or ", unmatched" behind one that is not a plain match."""
    return [
        model.class_name(int(label)) + ("" if kind == Answer.MATCHED else f", {Answer(int(kind)).name.lower()}")
        for label, kind in zip(prediction.labels, prediction.answers, strict=True)
    ]


def _places(old: SlotModel, new: SlotModel) -> Ids:
    """For each old slot the new slot with the same vectors and thresholds, -1 where there is none."""
    keys = ("weights", "centres", "precision_thresholds", "support_thresholds")

    def rows(model: SlotModel) -> list[bytes]:
        parts = [getattr(model.head, key).detach().cpu().reshape(model.head.n_slots, -1).numpy() for key in keys]
        return [np.ascontiguousarray(row).tobytes() for row in np.concatenate(parts, 1)]

    known: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows(new)):
        known.setdefault(row, []).append(place)
    return np.array([known[row].pop(0) if known.get(row) else -1 for row in rows(old)], np.int64)


def _feature_reasons(old: SlotModel, new: SlotModel) -> tuple[str, ...]:
    """Why an input may have other features now."""
    reasons = []
    if old.preprocessing != new.preprocessing or old.views.spec != new.views.spec:
        reasons.append("preprocessing or views differ")
    first, second = old.backbone.state_dict(), new.backbone.state_dict()
    if (
        old.backbone_spec != new.backbone_spec
        or first.keys() != second.keys()
        or not all(torch.equal(value.cpu(), second[name].cpu()) for name, value in first.items())
    ):
        reasons.append("the backbone differs")
    if not _same_whitening(old, new):
        reasons.append("the whitening differs")
    return tuple(reasons)


def _same_whitening(old: SlotModel, new: SlotModel) -> bool:
    first, second = old.featurizer.whitening, new.featurizer.whitening
    if first is None or second is None:
        return first is second
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name].cpu(), other[name].cpu()) for name in one)


def _slot_reasons(old: SlotModel, new: SlotModel) -> tuple[str, ...]:
    """Why the same features may meet other slots now."""
    reasons = []
    n = old.head.n_slots
    if new.head.n_slots < n:
        reasons.append("slots are gone")
    else:
        same = [torch.equal(getattr(old.head, key).cpu(), getattr(new.head, key)[:n].cpu()) for key in _SLOT]
        if not all(same):
            wrong = ", ".join(key for key, equal in zip(_SLOT, same, strict=True) if not equal)
            reasons.append(f"old slots are not as they were ({wrong})")
        later = new.head.generations[n:]
        if len(later) and n and int(later.min()) <= int(old.head.generations.max()):
            reasons.append("a new slot has no later generation than the old ones")
    return tuple(reasons)


def _n_disjoint(old: SlotModel, new: SlotModel, added: Ids) -> int:
    """Added slots that cannot fire where an old slot of another label does."""
    if old.head.feature_dim != new.head.feature_dim:
        return 0
    rows = torch.from_numpy(added).to(new.device)
    radii = new.head.support_thresholds[rows].double().clamp(-1, 1).arccos()
    room = free_radius(new.head.centres[rows].to(old.device), new.head.labels[rows].to(old.device), old.head.caps())
    return int((radii.to(room) <= room).sum())


def _changed(
    old: SlotModel, new: SlotModel, x: RawInputs | None, *, same_features: bool
) -> tuple[tuple[ChangedAnswer, ...], int]:
    """Matched answers that differ, on the remembered examples (if features mean the same) and then on the data."""
    pairs: list[tuple[str, npt.NDArray[np.int64], Prediction, Prediction]] = []
    if same_features and old.exemplar_features is not None and old.head.n_slots and new.head.n_slots:
        flat = old.exemplar_features.flatten(0, 1)
        ids = (flat != 0).any(1).nonzero()[:, 0]
        features = flat[ids][:, None].float()
        before = decide(features.to(old.device), old.head.caps())
        pairs.append(("remembered", ids.numpy(), before, decide(features.to(new.device), new.head.caps())))
    if x is not None:
        pairs.append(("data", np.arange(len(x)), old.predict(x), new.predict(x)))
    found, n = [], 0
    for source, examples, before, after in pairs:
        n += int(before.matched.sum())
        names, later = answer_names(old, before), answer_names(new, after)
        found += [
            ChangedAnswer(source, int(examples[i]), names[i], later[i], int(before.slots[i]), int(after.slots[i]))
            for i in np.flatnonzero(before.matched)
            if names[i] != later[i]
        ]
    return tuple(found), n
