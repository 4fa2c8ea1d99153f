"""Which sealed slot answers a row for ever: by its reach, and by a clear lead over what was sealed no later."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slots.continual.pca_slots import OPEN, Floats, PcaSlots, measure, measure_one
from slots.shapes import Ids

_TOLERANCE = 1e-11  # of energies of unit rows in float64; products err by less than 1e-13


def match(slots: PcaSlots, rows: npt.NDArray[np.float64], *, lead: float) -> Ids:
    """The slot that answers each row.

    Parameters
    ----------
    slots : PcaSlots
        Open ones match nothing.
    rows : float64 array of shape (example, feature)
        Unit rows.
    lead : float in (0, 1)
        A slot answers only where its energy is at most this share of that of every slot of another label which was
        sealed before it or with it.

    Returns
    -------
    int64 array of shape (example,)
        Place of the slot; -1 where none answers.

    Notes
    -----
    Of the slots whose reach holds the row and which lead, one of the oldest generation answers: the one of least
    energy, ties to the first. A slot's claim depends on nothing but itself and slots sealed no later, all of which
    never change, and no younger slot can take an answer from an older one. So an answer, once given, stands: for every
    row, not only for those seen. Rows so near to a border that rounding could decide are measured once more by
    `measure_one`, so neither other rows of the call nor slots that come later can turn them.
    """
    sealed = np.flatnonzero(slots.generations != OPEN)
    found = np.full(len(rows), -1, np.int64)
    if len(sealed) == 0 or len(rows) == 0:
        return found
    kept = slots.take(sealed)
    elders = (kept.generations[None] <= kept.generations[:, None]) & (kept.labels[None] != kept.labels[:, None])
    energies, mahalanobis = measure(kept, rows)
    sharpest = kept.variances.astype(np.float64).min(1) + kept.noise()
    slack = np.stack([np.full(len(kept), _TOLERANCE), _TOLERANCE * (1 + 1 / sharpest)])
    held = (energies <= kept.limits[:, 0] + slack[0]) & (mahalanobis <= kept.limits[:, 1] + slack[1])
    row, slot = np.nonzero(held)
    rival = np.where(elders[slot], energies[row], np.inf).min(1)
    energy, depth = energies[row, slot], mahalanobis[row, slot]
    claims = energy <= lead * rival
    near = (np.abs(energy - kept.limits[slot, 0]) <= slack[0, slot]) | (
        np.abs(depth - kept.limits[slot, 1]) <= slack[1, slot]
    )
    near |= np.abs(energy - lead * np.where(np.isinf(rival), 2**20, rival)) <= _TOLERANCE
    unsure = np.zeros(len(rows), bool)
    unsure[row[near]] = True
    row, slot, energy = row[claims], slot[claims], energy[claims]
    order = np.lexsort((slot, energy, kept.generations[slot], row))
    row, slot, energy = row[order], slot[order], energy[order]
    close = (row[1:] == row[:-1]) & (np.abs(energy[1:] - energy[:-1]) <= _TOLERANCE)
    unsure[row[1:][close]] = True
    first = np.unique(row, return_index=True)[1]
    found[row[first]] = sealed[slot[first]]
    for i in np.flatnonzero(unsure):
        place = _match_one(kept, rows[i], elders, lead)
        found[i] = -1 if place < 0 else sealed[place]
    return found


def _match_one(kept: PcaSlots, row: Floats, elders: npt.NDArray[np.bool_], lead: float) -> int:
    """The rule itself, for one row: place among the sealed slots, or -1."""
    energies, mahalanobis = measure_one(kept, np.ascontiguousarray(row, np.float64))
    claims = (energies <= kept.limits[:, 0]) & (mahalanobis <= kept.limits[:, 1])
    claims &= energies <= lead * np.where(elders, energies, np.inf).min(1)
    places = np.flatnonzero(claims)
    if len(places) == 0:
        return -1
    return int(places[np.lexsort((places, energies[places], kept.generations[places]))[0]])
