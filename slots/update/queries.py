"""What to ask about new data: the unmatched examples, and the few among them that stand for most of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from slots.cover.bits import CoverBlock, as_words, pack_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.errors import UsageError
from slots.features.source import FeatureSource, unit_features
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.progress import Progress, silent
from slots.rehearsal.group_purity import GroupRadius, group_radius
from slots.rehearsal.memory import RehearsalMemory
from slots.rounding import full_product
from slots.shapes import Ids
from slots.update.doubts import Doubts, Limits, ask_in_doubt, recall_of
from slots.update.snapshot import Snapshot

USUAL_RADIUS = 0.5
"""Radius of a candidate cap where the present slots teach none, radians (29 degrees)."""

_WORD = 64
_SAMPLED = 1000  # unmatched and remembered examples that set the radius
_TILE = 1 << 22  # scores held at once: 16 MB


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
    if budget is not None and budget < 0:
        raise UsageError(f"`budget` must be >= 0, got {budget}. It is the number of labels you can give.")
    if stop_below is not None and stop_below < 1:
        raise UsageError(f"`stop_below` must be >= 1, got {stop_below}. 1 asks until everything is covered.")
    if not 0 < purity <= 1:
        raise UsageError(
            f"`purity` must lie in (0, 1], got {purity}. 0.95 wants 19 of 20 in a group to be of one label."
        )
    progress = progress or silent
    prediction = snapshot.predict(source, progress)
    unmatched = np.flatnonzero(~prediction.matched)
    reach = median_radius(snapshot.head, fallback=USUAL_RADIUS) if radius is None else radius
    measured: float | None = None
    least = stop_below or (1 if budget is not None else max(2, len(unmatched) // 500))
    empty = np.zeros(0, np.int64)
    if by == "doubt" and (recall := recall_of(snapshot)) is not None:
        limits = Limits(budget, least, purity, radius, max_candidates)
        return _in_doubt(prediction, unmatched, source, ask_in_doubt(snapshot, source, prediction, recall, limits))
    if len(unmatched) == 0:
        return Proposal(prediction, unmatched, empty, empty, 0, 0, reach, source=source)
    fresh = source.take(unmatched).fill(progress)
    if radius is None and snapshot.rehearsal is not None:
        found = _pure(snapshot.rehearsal, fresh, purity, reach)
        reach, measured = found.radius, found.purity
    candidates, words = _cap_words(fresh, reach, max_candidates, progress)
    block = CoverBlock(
        0, torch.arange(len(candidates)), torch.arange(len(unmatched)), words.cpu()
    )  # the parallel rounds of a GPU know no limit on the number of picks
    picks = greedy_set_cover_packed([block], min_gain=least, max_slots=budget) if budget != 0 else torch.zeros(0).long()
    gains, next_gain, bound = _gains(block.words, picks, len(unmatched))
    middles = candidates[picks.numpy()]
    groups = tuple(unmatched[places] for places in _groups(block.words[picks], middles, len(unmatched)))
    return Proposal(prediction, unmatched, unmatched[middles], gains, next_gain, bound, reach, measured, source, groups)


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


def _pure(memory: RehearsalMemory, fresh: FeatureSource, purity: float, most: float) -> GroupRadius:
    """Radius of the groups of unmatched examples by the remembered ones; an even sample of either is looked at."""
    rows = np.arange(0, len(fresh), max(1, -(-len(fresh) // _SAMPLED)))
    views = normalize(fresh.take(rows, keep=False)(slice(None)).float()).cpu()
    views = views[(views[:, 0] != 0).any(1)]
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(len(memory)))[:_SAMPLED]
    features = normalize(memory.features[drawn].float())
    return group_radius(features, memory.labels[drawn], views, purity=purity, most=most)


def _cap_words(
    source: FeatureSource, radius: float, max_candidates: int, progress: Progress
) -> tuple[Ids, Int[Tensor, "candidate word"]]:
    """Places of the candidates, and which examples each one's cap holds (by their best view), as bits."""
    unit = unit_features(source)
    usable = np.flatnonzero((unit != 0).any(1).cpu().numpy())
    places = usable[:: max(1, -(-len(usable) // max_candidates))]
    caps = unit[torch.from_numpy(places).to(unit.device)]
    limit, words = math.cos(radius), []
    step = _WORD * max(1, _TILE // (_WORD * source.featurizer.views.n_views * max(1, len(places))))
    for start in range(0, len(source), step):
        rows = slice(start, min(len(source), start + step))
        progress("candidates", rows.stop / len(source))
        scores = full_product(normalize(source(rows).float()), caps.T).amax(1)
        inside: Bool[Tensor, "candidate example"] = (scores > limit).T
        own = torch.from_numpy((places >= rows.start) & (places < rows.stop)).nonzero()[:, 0]
        inside[own, torch.from_numpy(places)[own] - rows.start] = True  # a candidate covers itself, rounding or not
        words.append(pack_bits(inside))
    return places, torch.cat(words, 1) if words else torch.zeros(0, 0, dtype=torch.long)


def _gains(words: Int[Tensor, "candidate word"], picks: Tensor, n_examples: int) -> tuple[Ids, int, int]:
    """Marginal gain of each pick, that of the best next one, and the upper bound for as many picks."""
    bits = words.numpy().view(np.uint8)
    covered = np.zeros(bits.shape[1], np.uint8)
    gains, bounds = np.zeros(len(picks), np.int64), [n_examples]
    looked_at = {0, len(picks) // 4, len(picks) // 2, len(picks)}
    margin = np.zeros(len(bits), np.int64)
    for place in range(len(picks) + 1):
        if place in looked_at:
            margin = np.array([_count(row & ~covered) for row in bits], np.int64)
            bounds.append(int(gains.sum() + np.sort(margin)[::-1][: len(picks)].sum()))
        if place < len(picks):
            row = bits[int(picks[place])]
            gains[place] = _count(row & ~covered)
            covered |= row
    return gains, int(margin.max(initial=0)), min(bounds)


def _groups(words: Int[Tensor, "query word"], middles: Ids, n_examples: int) -> list[Ids]:
    """Places of the examples that each query covers first, its own before the others where it is among them."""
    covered, groups = np.zeros(n_examples, bool), []
    for row, middle in zip(as_words(words).view(np.uint8), middles, strict=True):
        mine = np.unpackbits(row, count=n_examples, bitorder="little").astype(bool) & ~covered
        covered |= mine
        places = np.flatnonzero(mine)
        groups.append(np.concatenate([places[places == middle], places[places != middle]]))
    return groups


def _count(octets: npt.NDArray[np.uint8]) -> int:
    return int(np.unpackbits(octets).sum())
