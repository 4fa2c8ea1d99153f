"""What to ask about new data: the unmatched examples, and the few among them that stand for most of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.cover.bits import CoverBlock, as_words
from slots.cover.coverage import coverage_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.cover.sharded import coverage_of, first_covers
from slots.errors import UsageError
from slots.features.source import FeatureSource, unit_features
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.progress import Progress, silent
from slots.rehearsal.group_purity import GroupRadius, group_radius
from slots.rehearsal.memory import RehearsalMemory
from slots.shapes import Ids, ViewFeatures
from slots.update.doubts import Doubts, Limits, ask_in_doubt, recall_of
from slots.update.snapshot import Snapshot

USUAL_RADIUS = 0.5
"""Radius of a candidate cap where the present slots teach none, radians (29 degrees)."""

SAMPLED = 1000
"""Unmatched and remembered examples that set the radius."""

_WORD = 64
_TILE = 1 << 22  # features held at once: 16 MB


@dataclass(frozen=True)
class Proposal:
    """What a model does not know about new data, and what to ask first.

    Parameters
    ----------
    prediction : Prediction
        The answers of the present model to all of the new data.
    unmatched : int64 array of shape (unmatched,)
        Examples that no slot matches, ascending.
    queries : int64 array of shape (query,)
        Examples to label, the most useful first; each is the middle of a candidate cap. Asked by doubt, some may be
        matched: `doubtful` says which.
    gains : int64 array of shape (query,)
        How many of the unmatched each query's cap covers that those before it do not.
    next_gain : int
        What one more query would cover.
    bound : int
        No choice of as many candidates could cover more than this many of the unmatched.
    radius : float
        Angular radius of the candidate caps, radians.
    purity : float or None
        Share of what a query stands for, in [0, 1], that is expected to have the query's own label: measured on
        remembered examples (`slots.rehearsal.group_radius`). None where nothing was measured. Default: None.
    source : FeatureSource, optional
        The new data's features as far as they are known and fit into memory, for the update that follows:
        ``dataclasses.replace(proposal, source=None)`` lets go of them.
    groups : tuple of int64 arrays of shape (example,), one for each query
        The unmatched examples that ``gains`` counts, or the matched ones that a matched query stands for: those within
        the query's cap that no cap of an earlier query holds. So no example is in two groups. The query itself comes
        first, unless an earlier group has it (never by doubt); the others ascend. Default: none, for a proposal that
        was put together by hand.
    """

    prediction: Prediction
    unmatched: Ids
    queries: Ids
    gains: Ids
    next_gain: int
    bound: int
    radius: float
    purity: float | None = None
    source: FeatureSource | None = field(default=None, repr=False, compare=False)
    groups: tuple[Ids, ...] = field(default=(), repr=False, compare=False)

    @property
    def doubtful(self) -> npt.NDArray[np.bool_]:
        """Which queries are matched, and asked about because all that is remembered contradicts the slot."""
        return self.prediction.matched[self.queries]

    @property
    def covered(self) -> int:
        """Unmatched examples within the caps of all queries."""
        return int(self.gains.sum())

    def __str__(self) -> str:
        n, total = len(self.queries), len(self.unmatched)
        if total == 0:
            return "Every input is matched; there is nothing to ask."
        share, most = 100 * self.covered / total, 100 * self.bound / total
        said = (
            f"{total} of {len(self.prediction)} inputs are unmatched. These {n} labels cover {share:.1f} % of them; no "
            f"{n} could cover more than {most:.1f} %. The next label would cover {self.next_gain} more."
        )
        return said if self.purity is None or not n else f"{said} {self.stands_for}"

    @property
    def stands_for(self) -> str:
        """How far a query's label holds for what it stands for, as a sentence; empty where nothing was measured."""
        if self.purity is None:
            return ""
        return f"On remembered examples such groups have the label of their middle to {100 * self.purity:.1f} %."


@torch.no_grad()
def propose(
    snapshot: Snapshot,
    source: FeatureSource,
    *,
    budget: int | None = None,
    stop_below: int | None = None,
    radius: float | None = None,
    purity: float = 0.95,
    max_candidates: int = 2000,
    by: Literal["cover", "doubt"] = "cover",
    progress: Progress | None = None,
) -> Proposal:
    """Greedy maximum coverage of what the slots do not match, by caps around a few of its examples.

    Parameters
    ----------
    snapshot : Snapshot
        Of the model, which is not changed.
    source : FeatureSource
        The new inputs, as `Snapshot.source` makes it.
    budget : int, optional
        Largest number of queries (count, >= 0). Default: as many as earn their place.
    stop_below : int, optional
        Stop before a query that would cover fewer of the unmatched than this (count, >= 1). Default: 1 with a budget,
        else 1 in 500 of the unmatched and at least 2.
    radius : float, optional
        Angular radius of a candidate cap in radians. Default: the largest at which groups are as pure as wanted
        (`slots.rehearsal.group_radius`), at most what the present slots teach, `median_radius`.
    purity : float in (0, 1], default 0.95
        Without ``radius``: wanted share of what a query stands for that has its label.
    max_candidates : int, default 2000
        With more unmatched examples than this every n-th is a candidate; so the cost grows in step with the data.
    by : {"cover", "doubt"}, default "cover"
        Whether each unmatched example counts the same, or each example by how likely its answer is wrong
        (`slots.update.doubts`): the unmatched by how unsure the guess is, and matched ones too where all that
        is remembered contradicts the slot. Without a rehearsal memory each counts the same.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Returns
    -------
    Proposal
        The same for the same model, data and options.

    Raises
    ------
    UsageError
        If a number is out of its range.
    EmptyHeadError
        If the model has no slots.

    Notes
    -----
    Greedy maximum coverage (Nemhauser, Wolsey and Fisher 1978) of the unmatched by caps of one radius around some of
    them, as in ProbCover (Yehuda et al. 2022), which covers everything; here what is matched needs no label. The bound
    is theirs too: for any set ``S``, ``f(S)`` plus the ``n`` largest gains over ``S`` is an upper bound for every
    choice of ``n``.
    """
    check_asked(budget, stop_below, radius, purity)
    progress = progress or silent
    prediction = snapshot.predict(source, progress)
    unmatched = np.flatnonzero(~prediction.matched)
    reach = median_radius(snapshot.head, fallback=USUAL_RADIUS) if radius is None else radius
    measured: float | None = None
    least = least_gain(budget, stop_below, len(unmatched))
    empty = np.zeros(0, np.int64)
    if by == "doubt" and (recall := recall_of(snapshot)) is not None:
        limits = Limits(budget, least, purity, radius, max_candidates)
        return _in_doubt(prediction, unmatched, source, ask_in_doubt(snapshot, source, prediction, recall, limits))
    if len(unmatched) == 0:
        return Proposal(prediction, unmatched, empty, empty, 0, 0, reach, source=source)
    fresh = source.take(unmatched).fill(progress)
    if radius is None and snapshot.rehearsal is not None:
        rows = np.arange(0, len(fresh), max(1, -(-len(fresh) // SAMPLED)))
        views = fresh.take(rows, keep=False)(slice(None))
        found = pure_radius(snapshot.rehearsal, views, purity=purity, most=reach)
        reach, measured = found.radius, found.purity
    unit = unit_features(fresh)
    usable = np.flatnonzero((unit != 0).any(1).cpu().numpy())
    candidates = usable[:: max(1, -(-len(usable) // max_candidates))]
    caps = unit[torch.from_numpy(candidates).to(unit.device)]
    words = cap_words(fresh, caps, reach, places=candidates, progress=progress)
    block = CoverBlock(
        0, torch.arange(len(candidates)), torch.arange(len(unmatched)), words
    )  # the parallel rounds of a GPU know no limit on the number of picks
    picks = greedy_set_cover_packed([block], min_gain=least, max_slots=budget) if budget != 0 else torch.zeros(0).long()
    gains, next_gain, bound = coverage_of([as_words(block.words)], picks.numpy(), len(unmatched))
    middles = candidates[picks.numpy()]
    groups = tuple(unmatched[places] for places in _groups(block.words[picks], middles, len(unmatched)))
    return Proposal(prediction, unmatched, unmatched[middles], gains, next_gain, bound, reach, measured, source, groups)


def check_asked(budget: int | None, stop_below: int | None, radius: float | None, purity: float) -> None:
    """Raise a `UsageError` for numbers outside their range."""
    if budget is not None and budget < 0:
        raise UsageError(f"`budget` must be >= 0, got {budget}. It is the number of labels you can give.")
    if stop_below is not None and stop_below < 1:
        raise UsageError(f"`stop_below` must be >= 1, got {stop_below}. 1 asks until everything is covered.")
    if radius is not None and not 0 <= radius <= math.pi:
        raise UsageError(f"`radius` must lie in [0, pi], got {radius}. It is an angle in radians; 0.5 is 29 degrees.")
    if not 0 < purity <= 1:
        raise UsageError(
            f"`purity` must lie in (0, 1], got {purity}. 0.95 wants 19 of 20 in a group to be of one label."
        )


def least_gain(budget: int | None, stop_below: int | None, n_unmatched: int) -> int:
    """How many of the unmatched a query must cover; see `propose`."""
    return stop_below or (1 if budget is not None else max(2, n_unmatched // 500))


def _in_doubt(prediction: Prediction, unmatched: Ids, source: FeatureSource, found: Doubts) -> Proposal:
    """The same as a proposal; no bound is known but that no more than all can be covered."""
    gains = np.array([int((~prediction.matched[group]).sum()) for group in found.groups], np.int64)
    return Proposal(
        prediction,
        unmatched,
        found.queries,
        gains,
        found.next_gain,
        len(unmatched),
        found.radius,
        found.purity,
        source,
        found.groups,
    )


def median_radius(head: IncrementalNeuralHashing, *, fallback: float, smallest: float = 0.0) -> float:
    """Radius of a new cap with nothing around it: the median support cap of the oldest generation.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        The present slots.
    fallback : float
        What is taken where these teach nothing: there are none, or none has a support limit (radians).
    smallest : float, default 0.0
        Caps of a smaller radius do not count: a slot that owns a single example has one that is only rounding.

    Returns
    -------
    float
        Radians.

    Notes
    -----
    Of the oldest generation alone, since the small caps that updates put around single examples would draw it down,
    update by update, until every new example becomes a slot of its own.
    """
    limits = head.support_thresholds.double()
    radii = limits.clamp(-1, 1).arccos()
    counted = radii >= smallest
    if not bool(counted.any()):
        return fallback
    oldest = head.generations == head.generations[counted].min()
    radii = radii[counted & oldest & (limits <= 1) & (limits > -1)]
    return float(radii.median()) if len(radii) else fallback


def pure_radius(memory: RehearsalMemory, views: ViewFeatures, *, purity: float, most: float) -> GroupRadius:
    """Radius of the groups of unmatched examples by the remembered ones, of which a sample is looked at.

    Parameters
    ----------
    memory : RehearsalMemory
        Of the model.
    views : float tensor of shape (example, view, feature)
        Features of unmatched examples, at most `SAMPLED` of them drawn evenly.
    purity : float in (0, 1]
        Wanted share of a group that has the label of its middle.
    most : float
        Largest radius that may come out, radians.

    Returns
    -------
    GroupRadius
    """
    unit = normalize(views.float()).cpu()
    unit = unit[(unit[:, 0] != 0).any(1)]
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(len(memory)))[:SAMPLED]
    features = normalize(memory.features[drawn].float())
    return group_radius(features, memory.labels[drawn], unit, purity=purity, most=most)


@torch.no_grad()
def cap_words(
    source: FeatureSource,
    caps: Float[Tensor, "candidate feature"],
    radius: float,
    *,
    places: Ids,
    progress: Progress = silent,
) -> Int[Tensor, "candidate word"]:
    """Which examples lie within caps of one radius, by their best view, as bits.

    Parameters
    ----------
    source : FeatureSource
        The examples.
    caps : float tensor of shape (candidate, feature)
        Middles of the caps, on the device of the source.
    radius : float
        Of all caps, radians.
    places : int64 array of shape (candidate,)
        Which of the examples each middle is; below 0 where it is none of them.
    progress : callable, optional
        ``progress("candidates", share)``, told how far it is.

    Returns
    -------
    int64 tensor of shape (candidate, word)
        The same however the examples are divided among calls, given their features: what lies near the edge of a cap
        is looked at again in float64 (`slots.cover.coverage`). A candidate covers itself, rounding or not.
    """
    limits = torch.full((len(caps),), math.cos(radius), dtype=torch.float64, device=caps.device)
    ours, words = torch.zeros(len(caps), dtype=torch.long, device=caps.device), []
    step = _WORD * max(1, _TILE // (_WORD * source.featurizer.views.n_views * source.featurizer.feature_dim))
    for start in range(0, len(source), step):
        rows = slice(start, min(len(source), start + step))
        progress("candidates", rows.stop / len(source))
        features = source(rows).float()
        features = features[:, 0] if features.shape[1] == 1 else features  # two axes have kernels of their own on a GPU
        labels = torch.zeros(len(features), dtype=torch.long, device=features.device)
        words.append(coverage_bits(caps, ours, limits, features, labels)[0].words)
    found = torch.cat(words, 1) if words else torch.zeros(len(caps), 0, dtype=torch.long, device=caps.device)
    own = np.flatnonzero((places >= 0) & (places < len(source)))
    bits = as_words(found.cpu())
    bits[own, places[own] // _WORD] |= np.uint64(1) << (places[own] % _WORD).astype(np.uint64)
    return torch.from_numpy(bits.view(np.int64))


def _groups(words: Int[Tensor, "query word"], middles: Ids, n_examples: int) -> list[Ids]:
    """Places of the examples that each query covers first, its own before the others where it is among them."""
    first, groups = first_covers(as_words(words), n_examples), []
    for place, middle in enumerate(middles):
        mine = np.flatnonzero(first == place)
        groups.append(np.concatenate([mine[mine == middle], mine[mine != middle]]))
    return groups
