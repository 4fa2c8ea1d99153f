"""What an update adds to a model: planned here from a snapshot, with nothing changed; `SlotModel.update` commits it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slots.errors import DataError
from slots.features.exemplars import support_features, thumbnails
from slots.features.source import FeatureSource
from slots.head.caps import SlotCaps
from slots.head.recalling.recall import Recall
from slots.head.similarities import normalize
from slots.labels import GivenLabels, LabelNames
from slots.progress import Progress, silent
from slots.rehearsal.judgement import (
    AS_PLANNED,
    LEAST_LABELS,
    MARGINS,
    NOTHING,
    TOLERANCE,
    Decision,
    Judged,
    Trial,
    decide_scope,
    harmless,
    join,
    right_answers,
)
from slots.rehearsal.recollection import learn_recall
from slots.shapes import Ids, RawInputs, SlotVectors
from slots.storage.generations import Generation
from slots.update.config import UpdateConfig
from slots.update.drafting.draft import DraftedSlots
from slots.update.drafting.pseudo_labelled_slots import pseudo_labelled_draft
from slots.update.drafting.seeded_slots import seeded_draft
from slots.update.new_caps import Caps, make_caps
from slots.update.planned import NewSlots, PlannedUpdate
from slots.update.queries import Proposal, propose
from slots.update.recalled_update import plan_recalled, told_examples
from slots.update.refining.refinement import matched_examples, refine
from slots.update.refining.rehearsal_batches import RefinementData
from slots.update.report import UpdateReport, contradictions, figures
from slots.update.self_training import Pool, make_pool
from slots.update.snapshot import Snapshot


def plan_update(
    snapshot: Snapshot,
    x: RawInputs,
    labels: GivenLabels | None = None,
    *,
    proposal: Proposal | None = None,
    budget: int | None = None,
    config: UpdateConfig | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> PlannedUpdate:
    """Make new slots for what a model does not match: all the work of an update, on a model that stays as it is.

    Parameters
    ----------
    snapshot : Snapshot
        Of the model.
    x : array of shape (example, ...)
        New inputs.
    labels : int array of shape (example,), or mapping from row to label, optional
        Label ids, -1 for unknown; a mapping may also hold names, and new names get the next ids.
    proposal : Proposal, optional
        What `propose` found for these inputs; its queries without a label become clusters. Default: with labels, only
        they make slots; without, a proposal is made.
    budget : int, optional
        Largest number of clusters, where a proposal is made here (count, >= 0).
    config : UpdateConfig, optional
        How slots are made. Default: `UpdateConfig`'s own numbers.
    pool : Pool, optional
        What `slots.update.self_training.make_pool` found for these inputs, where ``config.spread`` is set. Default: it
        is made.
    progress : callable, optional
        ``progress(step, share)``, told what is being done and how much of it is done.

    Returns
    -------
    PlannedUpdate

    Raises
    ------
    DataError
        If inputs or labels have another shape or kind than they must.

    Notes
    -----
    With ``config.spread`` the labels are spread over all unmatched examples first, and slots are made of what they
    reach (`slots.update.self_training`, `slots.update.drafting.pseudo_labelled_slots`); `slots.update.Inquiry` chooses
    the labels that serve that best. Otherwise each label (or query) seeds a slot; those that stand for enough of the
    unmatched (`slots.update.drafting.seeded_slots.select_pooled`) move to the mean of the examples nearest to them, the
    others remember their example as it is. Each unmatched example takes the label of the nearest slot, old or new; on
    these labels, on matched new examples and on the old slots' support examples the new weights are refined
    (`slots.update.refining`); last come the caps. A cluster answers for what it matches, and guesses about nothing
    else until it has a name. Where at least half of the unmatched are labelled, the seeds are thinned by set cover.
    Time and memory grow with the new data and the number of slots, not with the old training data.

    With ``config.recall`` none of this is done: what is told joins the memory, and the memory guesses
    (`slots.update.recalled_update`).

    With ``config.judge`` the plan is judged where labels are given. On half of the rehearsal memory, which took no part
    in it: new slots are refined further away from old examples (`slots.rehearsal.judgement.MARGINS`) until these keep
    their answers; where that does not help and no label is new, slots leave the pooled score
    (`slots.rehearsal.harmless`). On the labels: slots of either half of them answer the other half, and where that is
    no better than the present model, new slots answer only what they match, or are not added
    (`slots.rehearsal.decide_scope`).
    """
    config, progress = config or UpdateConfig(), progress or silent
    given, known = snapshot.labels.read(labels, len(x))
    if proposal is not None and len(proposal.prediction) != len(x):
        raise DataError(
            f"`proposal` must be for the same inputs, got one for {len(proposal.prediction)} and {len(x)} inputs. "
            "Call propose again."
        )
    source = _source(snapshot, x, proposal)
    if proposal is None:
        asked = labels is not None and bool((given >= 0).any())
        proposal = propose(snapshot, source, budget=0 if asked else budget, progress=progress)
    done = UpdateReport(
        generation=snapshot.generation,
        n_examples=len(x),
        n_unmatched=len(proposal.unmatched),
        labels_used=int((given[proposal.unmatched] >= 0).sum()),
        slots_added=0,
        clusters_added=0,
        slots=np.zeros(0, np.int64),
        sources=np.zeros(0, np.int64),
        contradictions=contradictions(proposal, given),
        proposal=replace(proposal, source=None),  # a report must not hold on to the features
    )
    if config.recall and snapshot.rehearsal is not None and bool((given >= 0).any()):
        return plan_recalled(snapshot, source, given, known, done)
    if config.spread is not None and pool is None and done.labels_used:
        pool = make_pool(snapshot, source, proposal.prediction, progress=progress)
    work = _Work(snapshot, source, given, proposal, config, pool, progress)
    draft = work.draft(first_free=known.n_labels)
    if draft is None or len(draft.prototypes.labels) == 0:
        return PlannedUpdate(None, done)
    decision = work.judged(draft)
    done = replace(done, scope=decision.scope, verdict=decision.verdict)
    if decision.scope == NOTHING:
        return PlannedUpdate(None, done)
    first, sources = snapshot.head.n_slots, np.where(draft.sources >= 0, proposal.unmatched[draft.sources], -1)
    done = replace(
        done,
        generation=snapshot.generation + 1,
        slots_added=len(draft.prototypes.labels),
        clusters_added=len(draft.clusters),
        slots=np.arange(first, first + len(draft.prototypes.labels)),
        sources=sources,
    )
    line = Generation(done.generation, "update", first + done.slots_added, figures(done))
    known = known.with_clusters(len(draft.clusters))
    return PlannedUpdate(work.finish(draft, decision, known, line), done)


def _source(snapshot: Snapshot, x: RawInputs, proposal: Proposal | None) -> FeatureSource:
    """Features of the new data: the proposal's, where it was made from these very inputs by this very backbone."""
    made = None if proposal is None else proposal.source
    if made is not None and made.x is x and made.featurizer is snapshot.featurizer:
        return made
    return snapshot.source(x)


@dataclass(frozen=True)
class _Work:
    """What an update has to work with; ``source`` and ``given`` are of all the new data."""

    snapshot: Snapshot
    source: FeatureSource
    given: Ids
    proposal: Proposal
    config: UpdateConfig
    pool: Pool | None
    progress: Progress

    def draft(self, *, first_free: int) -> DraftedSlots | None:
        """Where the new slots go; None when everything is matched."""
        snapshot, proposal, config = self.snapshot, self.proposal, self.config
        known = self.given[proposal.unmatched]
        if len(known) == 0:
            return None
        fresh = self.source.take(proposal.unmatched).fill(self.progress)
        if config.spread is None or not (known >= 0).any():
            return seeded_draft(snapshot, fresh, known, proposal, first_free=first_free, config=config)
        return pseudo_labelled_draft(
            snapshot, self.source, self.given, proposal, config=config, pool=self.pool, progress=self.progress
        )

    def judged(self, draft: DraftedSlots) -> Decision:
        """What may be added of the drafted slots, by the old data and by given labels that had no part in them."""
        if not self.config.judge or not self.votes or not (self.given[self.proposal.unmatched] >= 0).any():
            return Decision(self._pooled(draft), AS_PLANNED, "", MARGINS[0])
        judged, margin = self._kept_away(draft)
        old = self.snapshot.head.labels.unique().cpu().numpy()
        has_new = not np.isin(self.given[self.proposal.unmatched], [-1, *old]).all()
        if judged.lost > TOLERANCE and not has_new and self.snapshot.rehearsal is not None:
            judged = self._harmless(self.as_caps(draft, self.refined(draft, margin=margin)), tolerance=TOLERANCE)
        trial = self._trial(margin)
        return replace(decide_scope(self._pooled(draft), judged, trial, has_new_labels=has_new), margin=margin)

    def _kept_away(self, draft: DraftedSlots) -> tuple[Judged, float]:
        """The smallest margin on old examples at which these keep their answers, else the largest; what they lose."""
        judged = Judged(self._pooled(draft), 0.0)
        if self.snapshot.rehearsal is None:
            return judged, MARGINS[0]
        for margin in MARGINS:
            judged = self._harmless(self.as_caps(draft, self.refined(draft, margin=margin)), tolerance=1.0)
            if judged.lost <= TOLERANCE:
                break
        return judged, margin

    def _harmless(self, new: SlotCaps, *, tolerance: float) -> Judged:
        """Which new slots may guess where old examples may lose so much."""
        before, memory = self.snapshot.head.caps(), self.snapshot.rehearsal
        assert memory is not None
        return harmless(before, join(before, new), memory, tolerance=tolerance)

    def _trial(self, margin: float) -> Trial | None:
        """Twofold cross-fitting: slots of one half of the labels answer the other half; None for too few labels."""
        told = self.proposal.unmatched[self.given[self.proposal.unmatched] >= 0]
        if len(told) < LEAST_LABELS:
            return None
        told = told[np.argsort(self.given[told], kind="stable")]
        nothing = np.zeros(0, np.int64)
        before, counts = self.snapshot.head.caps(), []
        for half in (0, 1):
            held = told[half::2]
            given = self.given.copy()
            given[held] = -1
            asked = replace(self.proposal, queries=nothing, gains=nothing, groups=())
            work = replace(self, given=given, proposal=asked)
            draft = work.draft(first_free=1 + int(self.given.max()))
            assert draft is not None
            new = work.as_caps(draft, work.refined(draft, margin=margin))
            silent_ones = replace(new, pooled=torch.zeros_like(new.pooled))
            views, labels = self.source(held), torch.from_numpy(self.given[held])
            caps = (before, join(before, silent_ones), join(before, new))
            counts.append([right_answers(views, labels, each) for each in caps])
        return Trial(*(np.concatenate(column) for column in zip(*counts, strict=True)))

    @property
    def votes(self) -> bool:
        """Whether new slots can stand outside the pooled score: a head whose slots all do votes with all of them."""
        return bool(self.snapshot.head.pooled.any()) or self.snapshot.head.n_slots == 0

    def _pooled(self, draft: DraftedSlots) -> Tensor:
        """Drafted slots that are to guess: those that stand for many, and have a name."""
        prototypes = draft.prototypes
        named = ~torch.isin(prototypes.labels, torch.from_numpy(draft.clusters).to(prototypes.labels))
        return prototypes.pooled & named if self.votes else torch.zeros_like(named)

    def _caps(self, draft: DraftedSlots, weights: SlotVectors, *, judges: bool) -> Caps:
        """Caps over the unmatched and the memory; without those that judge it, or with them."""
        unmatched = self.proposal.unmatched
        return make_caps(
            self.source.take(unmatched),
            weights,
            draft.prototypes,
            draft.labels,
            known=torch.from_numpy(self.given[unmatched]).to(self.snapshot.device),
            old=self.snapshot.head.caps(),
            memory=self.snapshot.memory(judges=judges),
            precision=self.config.precision,
            radius=self.proposal.radius,
            disjoint=self.config.disjoint,
        )

    def as_caps(self, draft: DraftedSlots, weights: SlotVectors) -> SlotCaps:
        """The drafted slots as the decision sees them, before the judges cut their caps."""
        caps, head = self._caps(draft, weights, judges=False), self.snapshot.head
        labels = draft.prototypes.labels
        generations = torch.full_like(labels, self.snapshot.generation + 1)
        centres = normalize(draft.prototypes.centres)
        pooled = self._pooled(draft)
        return SlotCaps(weights, centres, caps.precision, caps.support, labels, generations, pooled, head.beta)

    def finish(self, draft: DraftedSlots, decision: Decision, known: LabelNames, line: Generation) -> NewSlots:
        """Refine the slots on all that is remembered, and give them their caps and their memory."""
        snapshot, unmatched, prototypes = self.snapshot, self.proposal.unmatched, draft.prototypes
        weights = self.refined(draft, margin=decision.margin, judges=True)
        caps = self._caps(draft, weights, judges=True)
        exemplars = caps.exemplars.cpu().numpy()
        ids = np.where(exemplars >= 0, unmatched[exemplars], -1)
        centres = normalize(prototypes.centres)  # as the head stores them
        exemplars_on_device = torch.from_numpy(ids).to(snapshot.device)
        told = self._told()
        return NewSlots(
            weights=weights,
            centres=prototypes.centres,
            labels=prototypes.labels,
            precision_thresholds=caps.precision,
            support_thresholds=caps.support,
            pooled=decision.pooled,
            hits=caps.members,
            exemplars=exemplars_on_device,
            exemplar_features=support_features(self.source, centres, exemplars_on_device),
            exemplar_images=thumbnails(self.source.x, ids) if snapshot.has_images else None,
            told=told,
            known=known,
            line=line,
            recall=self._recall(told),
        )

    def _told(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the memory keeps of the labelled examples that nothing matched."""
        rows = self.proposal.unmatched[self.given[self.proposal.unmatched] >= 0]
        return told_examples(self.source, self.given, rows)

    def _recall(self, told: tuple[Tensor, Tensor, Tensor]) -> Recall | None:
        """What guesses by the memory, with what is told now; None for a model whose memory does not guess."""
        memory, snapshot = self.snapshot.rehearsal, self.snapshot
        if memory is None or snapshot.head.recall is None:
            return None
        found = learn_recall(memory.joined(*told), snapshot.featurizer.whitening, snapshot.head.caps())
        return None if found is None else found.recall

    def refined(self, draft: DraftedSlots, *, margin: float, judges: bool = False) -> SlotVectors:
        """Weights of the new slots: those that are pooled are refined beside the old ones, the others stay."""
        prototypes, head, config = draft.prototypes, self.snapshot.head, self.config
        memory = self.snapshot.memory(judges=judges)
        rehearsed = matched_examples(self.proposal, self.given, most=config.rehearsal)
        answered = torch.from_numpy(self.proposal.prediction.labels[rehearsed]).to(draft.labels)
        few = slice(None, None, max(1, -(-len(memory[0]) // max(1, config.rehearsal))))  # or time would grow as slots^2
        data = RefinementData(
            source=self.source.take(np.concatenate([self.proposal.unmatched[draft.confident], rehearsed]), keep=False),
            labels=torch.cat([draft.labels[torch.from_numpy(draft.confident).to(draft.labels.device)], answered]),
            memory=memory[0][few],
            memory_labels=memory[1][few],
        )
        weights, pooled = prototypes.centres.clone(), prototypes.pooled
        weights[pooled] = refine(
            head,
            weights[pooled],
            prototypes.labels[pooled],
            data,
            epochs=config.epochs,
            lr=config.slot_lr,
            memory_margin=margin,
            seed=config.seed,
            progress=self.progress,
        )
        return weights
