"""Compiled loops: how far a point is from where its nearest slot has another label, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slots.jit import compiled
from slots.robust.box_kernels import Doubles, Space, boxed_distance, fill_room
from slots.robust.dual_kernels import Rivalry, nearest_boundary

Indices = npt.NDArray[np.int64]

PAIR, BOX, DUAL = 0, 1, 2


class SlotArrays(NamedTuple):
    """Unit vectors, their labels, and the lengths of their differences."""

    weights: Doubles
    labels: Indices
    gaps: Doubles


class Asked(NamedTuple):
    """Inputs, their products with the slots, and what a lead must exceed.

    ``slack`` has three columns: what is needed at the input itself, by how much that grows with the radius, and the
    most it can be.
    """

    x: Doubles
    scores: Doubles
    slack: Doubles


class Found(NamedTuple):
    """Results, written in place: radii, rivals, and of the dual the smallest changes."""

    radii: Doubles
    rivals: Indices
    changes: Doubles


@compiled
def _quotient(lead: float, gap: float, growth: float) -> float:
    """Distance at which a lead is used up; equal slots have none."""
    return lead / (gap + growth) if gap > 0 else min(lead, 0.0)


@compiled
def _rivalry(x: Doubles, slots: SlotArrays, own: Indices, witness: int, rival: int) -> Rivalry:
    slopes = np.empty((len(own), len(x)))
    lead, first = np.empty(len(own)), 0
    for k in range(len(own)):
        for p in range(len(x)):
            slopes[k, p] = slots.weights[own[k], p] - slots.weights[rival, p]
        lead[k] = (x * slopes[k]).sum()
        if own[k] == witness:
            first = k
    return Rivalry(slopes, lead, first)


@compiled
def _against(row: int, asked: Asked, slots: SlotArrays, own: Indices, rival: int) -> tuple[float, int]:
    """The largest quotient of an own slot with the rival, and which slot has it."""
    found, witness = -np.inf, own[0]
    scores, slack = asked.scores[row], asked.slack[row]
    for i in own:
        here = _quotient(scores[i] - scores[rival] - slack[0], slots.gaps[i, rival], slack[1])
        if here > found:
            found, witness = here, i
    return found, witness


@compiled
def _boxed(row: int, asked: Asked, slots: SlotArrays, pair: tuple[int, int], space: Space) -> float:
    """Distance from the plane between two slots inside the box."""
    x, (witness, rival), slack = asked.x[row], pair, asked.slack[row]
    slope, room = slots.weights[rival] - slots.weights[witness], np.empty(len(x))
    fill_room(x, slope, space, room)
    lead = asked.scores[row, witness] - asked.scores[row, rival]
    reach = boxed_distance(slope, room, lead - slack[0], space.infinity)
    if slack[1] == 0 or reach == np.inf:
        return reach
    return boxed_distance(slope, room, lead - min(slack[0] + slack[1] * reach, slack[2]), space.infinity)


@compiled
def fill_radii(asked: Asked, slots: SlotArrays, space: Space, method: int, found: Found) -> None:
    """Fill in the radius of each input, the rival that sets it, and for the dual the change that reaches it.

    Rivals are looked at in the order of their bound by the best own slot, until none can be nearer than what was found.

    Parameters
    ----------
    asked : Asked
        The inputs.
    slots : SlotArrays
        The slots.
    space : Space
        The box and the norm.
    method : int
        `PAIR`, `BOX` or `DUAL`.
    found : Found
        Filled in.
    """
    trial = np.empty(asked.x.shape[1])
    for row in range(len(asked.x)):
        scores, slack = asked.scores[row], asked.slack[row]
        top = np.argmax(scores)
        own, others = (
            np.flatnonzero(slots.labels == slots.labels[top]),
            np.flatnonzero(slots.labels != slots.labels[top]),
        )
        first = np.empty(len(others))
        for place in range(len(others)):
            j = others[place]
            first[place] = _quotient(scores[top] - scores[j] - slack[0], slots.gaps[top, j], slack[1])
        best, rival = np.inf, -1
        for place in np.argsort(first):
            if first[place] >= best:
                break
            j = others[place]
            reach, witness = _against(row, asked, slots, own, j)
            if method != PAIR and reach > 0:
                reach = max(reach, _boxed(row, asked, slots, (witness, j), space))
            if method == DUAL and 0 < reach < best:
                most = 2 * reach  # the slack is enough up to there
                needed = min(slack[0] + slack[1] * most, slack[2])
                exact = nearest_boundary(
                    asked.x[row], _rivalry(asked.x[row], slots, own, witness, j), needed, space, trial
                )
                reach = max(reach, exact if slack[1] == 0 else min(exact, most))
                if reach < best:
                    found.changes[row] = trial
            if reach < best:
                best, rival = reach, j
        found.radii[row], found.rivals[row] = max(best, 0.0), rival
