"""The update: new data in, new slots out, and no answer that a slot ever gave is changed.

Nothing is trained but the new slots. The backbone and the old slots stay bit for bit as they are, and the oldest
generation that fires answers alone (`slots.deciding`); so for every possible input, seen or not, what the model matched
before the update it answers in the same way after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.closing import support_features, thumbnails
from slots.drafting import seeded_draft, spread_draft
from slots.errors import DataError
from slots.matching import normalize
from slots.model import Generation, SlotModel
from slots.placing import Caps, Placed, make_caps
from slots.preprocessing import RawInputs
from slots.proposing import Proposal, Report, propose
from slots.refining import Lesson, refine
from slots.sources import FeatureSource
from slots.spreading import Outlook
from slots.update_config import UpdateConfig

__all__ = ["Contradiction", "GivenLabels", "UpdateConfig", "UpdateReport", "update"]

Ids = npt.NDArray[np.int64]
GivenLabels = npt.NDArray[Any] | Mapping[int, int | str]
"""Label ids, one an example and -1 for unknown; or example -> label id or name."""


@dataclass(frozen=True)
class Contradiction:
    """A given label that speaks against a slot; the slot's answer stands.

    Parameters
    ----------
    example : int
        Row of the new data.
    label : int
        The label given.
    answer : int
        The label of the slot that matched.
    slot : int
        That slot; `slots.editing` can relabel or delete it.
    """

    example: int
    label: int
    answer: int
    slot: int


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Parameters
    ----------
    generation : int
        Number of the new generation; that of the model before, when nothing was added.
    n_examples, n_unmatched : int
        New examples, and those no slot matched.
    labels_used : int
        Given labels that stand behind a new slot or limit one.
    slots_added, clusters_added : int
        New slots, and how many of them stand for a cluster without a name.
    slots : int64 array
        The new slots' places in the head.
    sources : int64 array of shape (new slot,)
        Row of the given label that each new slot rests on (with ``spread`` the nearest one of its label); -1 for a
        cluster, and for a slot that continues an old label on the word of the old slots.
    contradictions : tuple of Contradiction
        Given labels of matched examples that differ from the answer.
    proposal : Proposal
    """

    generation: int
    n_examples: int
    n_unmatched: int
    labels_used: int
    slots_added: int
    clusters_added: int
    slots: Ids
    sources: Ids
    contradictions: tuple[Contradiction, ...]
    proposal: Proposal


def update(
    model: SlotModel,
    x: RawInputs,
    labels: GivenLabels | None = None,
    *,
    proposal: Proposal | None = None,
    budget: int | None = None,
    config: UpdateConfig | None = None,
    outlook: Outlook | None = None,
    report: Report | None = None,
) -> UpdateReport:
    """Add slots for what the model does not match: labelled where a label is given, else as clusters with fresh ids.

    Parameters
    ----------
    model : SlotModel
        Changed in place, all at once at the end: an error leaves it as it was.
    x : array of shape (example, ...)
        New inputs, as the model was fitted on.
    labels : int array of shape (example,), or mapping from row to label, optional
        Label ids, -1 for unknown; a mapping may also hold names, and new names get the next ids.
    proposal : Proposal, optional
        What `propose` found for these inputs. Its queries without a label become clusters. Default: with labels, only
        they make slots; without, a proposal is made.
    budget : int, optional
        Largest number of clusters, when a proposal is made here.
    config : UpdateConfig, optional
    outlook : Outlook, optional
        What `slots.spreading.look` found for these inputs, where ``config.spread`` is set; else it is made.
    report : callable, optional
        ``report(step, share)``, told the progress.

    Returns
    -------
    UpdateReport

    Raises
    ------
    DataError
        If inputs or labels have another shape or kind than they must.

    Notes
    -----
    With ``config.spread`` the labels are spread over all unmatched examples first, and slots are made of what they
    reach (`slots.spreading`, `slots.standing`); `slots.asking.Inquiry` chooses the labels that serve that best.
    Otherwise each label (or query) seeds a slot; those that stand for enough of the unmatched
    (`slots.placing.find_voters`) move to the mean of the examples nearest to them, the others remember their example as
    it is. Each unmatched example takes the label of the nearest slot, old or new; on these labels, on matched new
    examples and on the old slots' support examples the new weights are refined (`slots.refining`); last come the caps.
    A cluster answers for what it matches, and guesses about nothing else until it has a name. Where at least half of
    the unmatched are labelled, the seeds are thinned by set cover. Time and memory grow with the new data and the
    number of slots, not with the old training data.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[1, 0, 0], [2, 0.1, 0], [0, 1, 0], [0.1, 3, 0]], dtype=np.float32)
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
    >>> done = model.update(np.array([[0, 0, 1], [0, 0.1, 2]], dtype=np.float32), {0: "up"})
    >>> done.slots_added, done.generation, model.class_name(int(model.predict(np.float32([[0, 0, 3]])).labels[0]))
    (1, 1, 'up')
    """
    config, report = config or UpdateConfig(), report or _silent
    given, names = _given_labels(model, len(x), labels)
    if proposal is None:
        asked = labels is not None and bool((given >= 0).any())
        proposal = propose(model, x, budget=0 if asked else budget, report=report)
    elif len(proposal.prediction) != len(x):
        raise DataError(
            f"`proposal` must be for the same inputs, got one for {len(proposal.prediction)} and {len(x)} inputs. "
            "Call propose again."
        )
    contradictions = _contradictions(proposal, given)
    made = _make_slots(model, x, given, proposal, first_free=len(names), config=config, outlook=outlook, report=report)
    used = int((given[proposal.unmatched] >= 0).sum())
    done = UpdateReport(
        generation=model.generation,
        n_examples=len(x),
        n_unmatched=len(proposal.unmatched),
        labels_used=used,
        slots_added=0,
        clusters_added=0,
        slots=np.zeros(0, np.int64),
        sources=np.zeros(0, np.int64),
        contradictions=contradictions,
        proposal=proposal,
    )
    if made is None:
        return done
    before = model.head.state_dict()  # growing replaces tensors and writes into none of these
    others = {name: getattr(model, name) for name in ("support", "thumbnails", "class_names", "clusters", "history")}
    others["history"] = list(model.history)
    try:
        return _commit(model, x, made, done, names)
    except BaseException:  # an interrupt too must not leave half an update behind
        model.head.load_state_dict(before)
        for name, value in others.items():
            setattr(model, name, value)
        raise


@dataclass(frozen=True)
class _Made:
    """New slots, ready to join the head."""

    weights: Tensor
    placed: Placed
    caps: Caps
    clusters: Ids
    unmatched: Ids
    sources: Ids


def _make_slots(
    model: SlotModel,
    x: RawInputs,
    given: Ids,
    proposal: Proposal,
    *,
    first_free: int,
    config: UpdateConfig,
    outlook: Outlook | None,
    report: Report,
) -> _Made | None:
    """All the work of an update, on a model that stays as it is; None when there is nothing to add."""
    unmatched, head = proposal.unmatched, model.head
    if len(unmatched) == 0:
        return None
    source = FeatureSource(model, x[unmatched], report)
    if config.spread is not None and (given[unmatched] >= 0).any():
        draft = spread_draft(model, x, given, proposal, config=config, outlook=outlook, report=report)
    else:
        draft = seeded_draft(source, given[unmatched], proposal, first_free=first_free, config=config)
    if len(draft.placed.labels) == 0:
        return None
    placed, marks = draft.placed, torch.from_numpy(given[unmatched]).to(model.device)
    memory, memory_labels = _memory(model)
    rehearsed = _rehearsed(proposal, given, config)
    few = slice(None, None, max(1, -(-len(memory) // max(1, config.rehearsal))))  # or time would grow as slots squared
    answered = torch.from_numpy(proposal.prediction.labels[rehearsed]).to(draft.labels)
    lesson = Lesson(
        x=x[np.concatenate([unmatched[draft.sure], rehearsed])],
        labels=torch.cat([draft.labels[torch.from_numpy(draft.sure).to(model.device)], answered]),
        memory=memory[few],
        memory_labels=memory_labels[few],
    )
    options = {"epochs": config.epochs, "lr": config.slot_lr, "seed": config.seed}
    weights, voters = placed.centres.clone(), placed.voters
    refined = refine(model, weights[voters], placed.labels[voters], lesson, report=report, **options)  # type: ignore[arg-type]
    weights[voters] = refined
    caps = make_caps(
        source,
        weights,
        placed,
        draft.labels,
        known=marks,
        old=head.caps(),
        memory=(memory, memory_labels),
        precision=config.precision,
        radius=proposal.radius,
        disjoint=config.disjoint,
    )
    sources = np.where(draft.sources >= 0, unmatched[draft.sources], -1)
    return _Made(weights, placed, caps, draft.clusters, unmatched, sources)


def _memory(model: SlotModel) -> tuple[Tensor, Tensor]:
    """Remembered examples of the old slots with their labels; the centres where there are none."""
    head = model.head
    if model.support is None:
        return head.centres, head.labels
    slot, place = (model.support != 0).any(2).nonzero(as_tuple=True)
    features = normalize(model.support[slot, place].float()).to(model.device)
    return features, head.labels[slot.to(head.labels.device)]


def _rehearsed(proposal: Proposal, given: Ids, config: UpdateConfig) -> Ids:
    """Matched new examples for the refinement, evenly spread; not those whose given label says otherwise."""
    agrees = (given < 0) | (given == proposal.prediction.labels)
    ids = np.flatnonzero(proposal.prediction.matched & agrees)
    if len(ids) == 0 or config.rehearsal == 0:
        return ids[:0]
    return np.asarray(ids[:: -(-len(ids) // config.rehearsal)], np.int64)


def _commit(model: SlotModel, x: RawInputs, made: _Made, done: UpdateReport, names: list[str]) -> UpdateReport:
    """Put the new slots into the model."""
    head, first = model.head, model.head.n_slots
    number = model.generation + 1
    exemplars = made.caps.exemplars.cpu().numpy()
    ids = np.where(exemplars >= 0, made.unmatched[exemplars], -1)
    pooling = bool(head.trained.any()) or head.n_slots == 0
    images = thumbnails(x, ids) if model.preprocessing.kind == "images" and model.thumbnails is not None else None
    kept = model.thumbnails
    head.add_slots(
        made.weights,
        made.placed.labels,
        centres=made.placed.centres,
        precision_thresholds=made.caps.precision,
        support_thresholds=made.caps.support,
        exemplars=torch.from_numpy(ids).to(model.device),
        generation=number,
        trained=False,
    )
    if pooling:  # a head whose slots all stand outside the pooled score goes on to vote with all of them
        named = ~torch.isin(made.placed.labels, torch.from_numpy(made.clusters).to(made.placed.labels))
        head.trained[first:] = made.placed.voters & named
    head.hits[first:] = made.caps.members
    fresh = support_features(FeatureSource(model, x, _silent, keep=False), head.exemplars[first:])
    old = model.support if model.support is not None else torch.zeros(first, *fresh.shape[1:], dtype=fresh.dtype)
    model.support = torch.cat([old, fresh])
    if images is not None and kept is not None:
        model.thumbnails = np.concatenate([kept, images])
    model.class_names = (*names, *(f"cluster {label}" for label in made.clusters.tolist()))
    model.clusters = model.clusters | set(made.clusters.tolist())
    done = replace(
        done,
        generation=number,
        slots_added=head.n_slots - first,
        clusters_added=len(made.clusters),
        slots=np.arange(first, head.n_slots),
        sources=made.sources,
    )
    model.history.append(Generation(number, "update", head.n_slots, _figures(done)))
    return done


def _figures(done: UpdateReport) -> dict[str, Any]:
    """What the history says of an update."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_examples": done.n_examples,
        "unmatched": done.n_unmatched,
        "labels_used": done.labels_used,
        "slots_added": done.slots_added,
        "clusters_added": done.clusters_added,
        "contradictions": [[c.example, c.label, c.answer, c.slot] for c in done.contradictions],
    }


def _given_labels(model: SlotModel, n: int, labels: GivenLabels | None) -> tuple[Ids, list[str]]:
    """Label ids of all new examples, -1 where unknown, and the names of all labels, the new ones last."""
    given = np.full(n, -1, np.int64)
    names = [model.class_name(label) for label in range(model.n_labels)]
    if labels is None:
        return given, names
    if isinstance(labels, Mapping):
        for row, label in labels.items():
            if not 0 <= int(row) < n:
                raise DataError(f"`labels` must be for rows 0 to {n - 1}, got row {row}. Is it for other data?")
            if isinstance(label, str):
                if label not in names:
                    names.append(label)
                given[int(row)] = names.index(label)
            elif int(label) < 0:
                raise DataError(f"`labels` must be names or numbers >= 0, got {label} for row {row}. Leave it out.")
            else:
                given[int(row)] = int(label)
    else:
        array = np.asarray(labels)
        if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer) or (n and int(array.min()) < -1):
            raise DataError(
                f"`labels` must be whole numbers >= -1 of shape ({n},), got {array.dtype} of shape {array.shape}. "
                "Give one label an example, -1 where it is unknown."
            )
        given = array.astype(np.int64)
    names += [str(label) for label in range(len(names), 1 + int(given.max(initial=-1)))]
    return given, names


def _contradictions(proposal: Proposal, given: Ids) -> tuple[Contradiction, ...]:
    answers = proposal.prediction
    rows = np.flatnonzero(answers.matched & (given >= 0) & (given != answers.labels))
    return tuple(Contradiction(int(i), int(given[i]), int(answers.labels[i]), int(answers.slots[i])) for i in rows)


def _silent(_step: str, _share: float) -> None:
    """Report nothing."""
