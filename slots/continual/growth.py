"""How the slots of a continual learner grow: where new ones start, what each learns, and when it is sealed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import OPEN, PcaSlots, Rows, measure, merge, quantize
from slots.shapes import Ids

_MOVES = 8  # k-means steps for the first slots of a class
_GROWN = 60  # examples after which a slot's measures of further ones are typical
_SURE = 20  # measures that a reach needs
_KEPT_FREE = 0.9  # of the way to the nearest example of another label


@dataclass(frozen=True)
class Growth:
    """How many slots there are, and what they promise.

    Parameters
    ----------
    first_slots : int
        Slots that a class may have at once when it is new, >= 1.
    first_share : int
        Examples that a class must have for each of these, >= 1.
    slot_share : int
        Examples for each slot beyond them, >= 1.
    probation : int
        Examples of other labels that a slot must have stood before it is sealed, >= 0.
    reach : float
        How far a sealed slot matches: standard deviations of the logarithm of its examples' energies above the mean.
    """

    first_slots: int = 20
    first_share: int = 25
    slot_share: int = 300
    probation: int = 24_000
    reach: float = 0.0

    def wanted(self, n_examples: int) -> int:
        """Slots for a class of which so many examples were not explained by sealed slots."""
        return max(1, min(self.first_slots, n_examples // self.first_share), n_examples // self.slot_share)


def unexplained(slots: PcaSlots, label: int, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows of a label lie in the reach of none of its sealed slots, of shape (example,)."""
    mine = slots.take((slots.labels == label) & (slots.generations != OPEN))
    energies, mahalanobis = measure(mine, rows)
    held = (energies <= mine.limits[:, 0]) & (mahalanobis <= mine.limits[:, 1])
    return np.asarray(~held.any(axis=1), np.bool_)


def learn(slots: PcaSlots, label: int, rows: Rows, *, wanted: int, others: int, rng: np.random.Generator) -> None:
    """Let the open slots of a label learn some rows, after adding new slots where there are too few; in place.

    Parameters
    ----------
    slots : PcaSlots
        Open slots of the label change; new ones come behind the others.
    label : int
        Label id of all of the rows.
    rows : float32 array of shape (example, feature)
        At least one.
    wanted : int
        Slots that the label should have; at least one of them is open afterwards.
    others : int
        Examples of other labels learned so far.
    rng : numpy.random.Generator
        Draws where new slots start.
    """
    mine = np.flatnonzero(slots.labels == label)
    opened = mine[slots.generations[mine] == OPEN]
    new = min(len(rows), max(wanted - len(mine), 0 if len(opened) else 1))
    if new:
        starts = _seeds(slots.take(mine), rows, new, rng)
        more = PcaSlots.empty(new, slots.variances.shape[1], slots.n_features)
        more.labels[:], more.born_after[:] = label, others
        more.codes[:, 0], more.scales[:, 0] = quantize(starts)
        slots.append(more)
        opened = np.concatenate([opened, np.arange(len(slots) - new, len(slots))])
    nearest = _distances(rows, slots.take(opened).means()).argmin(1)
    for place, slot in enumerate(opened.tolist()):
        won = rows[nearest == place]
        if len(won) == 0:
            continue
        if slots.counts[slot] >= _GROWN:
            _note(slots, slot, won)
        merge(slots, slot, won)


def seal(slots: PcaSlots, growth: Growth, others: Ids, generation: int) -> int:
    """Seal the open slots that have stood their probation; in place.

    Parameters
    ----------
    slots : PcaSlots
        Those that are sealed get limits and their generation.
    growth : Growth
        Its probation and reach are used.
    others : int64 array of shape (slot,)
        Examples of other labels learned so far, for each slot's label.
    generation : int
        Number of the sealed slots' generation, >= 0; older ones answer first.

    Returns
    -------
    int
        How many were sealed.

    Notes
    -----
    A slot's reach is that of its own typical example, and never as far as any example of another label has come; at
    most two standard deviations above the mean in Mahalanobis distance.
    """
    measured = slots.moments[:, 0, 0] >= _SURE
    ripe = np.flatnonzero((slots.generations == OPEN) & (others - slots.born_after >= growth.probation) & measured)
    count, mean, squares = slots.moments[ripe].transpose(2, 1, 0)
    limits = np.exp(mean + np.array([[growth.reach], [2.0]]) * np.sqrt(squares / np.maximum(count, 1)))
    limits[0] = np.minimum(limits[0], _KEPT_FREE * slots.nearest_foreign_energy[ripe])
    slots.limits[ripe], slots.generations[ripe] = limits.T, generation
    return len(ripe)


def _note(slots: PcaSlots, slot: int, rows: Rows) -> None:
    """Add the measures of rows that are not learned yet to a slot's moments (Chan et al., 1983)."""
    measures = measure(slots.take(np.array([slot])), rows)
    for kind, values in enumerate(measures):
        logs = np.log(np.maximum(values[:, 0].astype(np.float64), 1e-9))
        count, mean, squares = slots.moments[slot, kind]
        step, total = logs.mean() - mean, count + len(logs)
        squares += ((logs - logs.mean()) ** 2).sum() + step**2 * count * len(logs) / total
        slots.moments[slot, kind] = total, mean + step * len(logs) / total, squares


def _distances(rows: Rows, centres: Rows) -> Rows:
    """Squared distances less the rows' own squares, of shape (example, centre)."""
    found: Rows = (centres**2).sum(1) - 2 * rows @ centres.T
    return found


def _seeds(mine: PcaSlots, rows: Rows, n_seeds: int, rng: np.random.Generator) -> Rows:
    """Where new slots start: k-means of the rows for a new label, else rows that the present slots explain badly."""
    own = (rows**2).sum(1)
    if len(mine):
        cost, places = measure(mine, rows)[0].min(1).astype(np.float64), []
    else:
        places = [int(rng.integers(len(rows)))]
        cost = np.maximum(own + _distances(rows, rows[places])[:, 0], 0).astype(np.float64)
    while len(places) < n_seeds:
        chance = cost / cost.sum() if cost.sum() > 0 else None
        places.append(int(rng.choice(len(rows), p=chance)))
        cost = np.minimum(cost, np.maximum(own + _distances(rows, rows[places[-1:]])[:, 0], 0))
    centres = rows[places].copy()
    for _ in range(0 if len(mine) else _MOVES):
        nearest = _distances(rows, centres).argmin(1)
        for place in np.unique(nearest):
            centres[place] = rows[nearest == place].mean(0)
    return centres
