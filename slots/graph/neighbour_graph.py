"""Inputs as nodes: two are linked where one is among the nearest of the other, the stronger the more they share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slots.graph.louvain import Edges, Numbers, Weights, edge_weight
from slots.jit import compiled
from slots.shapes import Ids


def shared_neighbours(near: Ids | Numbers, count: int | None = None) -> Edges:
    """Graph of inputs from the nearest rows of each.

    Parameters
    ----------
    near : int array of shape (example, neighbour)
        The rows nearest to each row, itself left out, none twice.
    count : int, optional
        So many of them (count). Default: all.

    Returns
    -------
    Edges
        Symmetric. The weight of a pair of which one is among the nearest of the other: the Jaccard index of their sets
        of nearest rows, each row counted to its own set, in (0, 1]. Kept as what they share (count), a byte an edge
        where there are no more than 254 neighbours.

    Notes
    -----
    Shared nearest neighbours are Jarvis and Patrick's (1973); with the Jaccard index, for communities, Levine et al.'s
    (2015).
    """
    rows = np.ascontiguousarray(near, np.int32)
    count = rows.shape[1] if count is None else min(count, rows.shape[1])
    shared = np.arange(count + 2, dtype=np.float64)
    values = shared / (2 * (count + 1) - shared)
    from_others = _turned(rows, count)
    starts = _sizes(rows, count, *from_others).cumsum()
    nodes = np.empty(starts[-1], np.int32)
    counts = np.empty(starts[-1], np.uint8 if count < np.iinfo(np.uint8).max else np.uint16)
    degrees = np.zeros(len(rows))
    _link(rows, count, *from_others, starts, nodes, counts, values, degrees)
    return Edges(starts, nodes, counts, degrees, values)


def part_of(edges: Edges, kept: Ids) -> Edges:
    """The graph of some of the nodes, in ascending order, numbered anew."""
    number = np.full(len(edges), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    sizes = np.zeros(len(kept) + 1, np.int64)
    _count_kept(edges.starts, edges.nodes, kept, number, sizes)
    starts = sizes.cumsum()
    nodes, weights = np.empty(starts[-1], np.int32), np.empty(starts[-1], edges.weights.dtype)
    degrees = np.zeros(len(kept))
    _take_kept(edges.starts, edges.nodes, edges.weights, edges.values, kept, number, nodes, weights, degrees)
    return Edges(starts, nodes, weights, degrees, edges.values)


@compiled
def _turned(near: Numbers, count: int) -> tuple[Ids, Numbers]:
    """The rows among whose nearest each row is, in ascending order: where each list starts, and the lists."""
    starts = np.zeros(len(near) + 1, np.int64)
    for row in range(len(near)):
        for place in range(count):
            starts[near[row, place] + 1] += 1
    starts = starts.cumsum()
    nodes, end = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for row in range(len(near)):
        for place in range(count):
            other = near[row, place]
            nodes[end[other]] = row
            end[other] += 1
    return starts, nodes


@compiled
def _sizes(near: Numbers, count: int, starts: Ids, others: Numbers) -> Ids:
    """Neighbours of each row either way (count), after a first 0."""
    found, mine = np.zeros(len(near) + 1, np.int64), np.full(len(near), -1, np.int32)
    for row in range(len(near)):
        for place in range(count):
            mine[near[row, place]] = row
        found[row + 1] = count
        for other in others[starts[row] : starts[row + 1]]:
            found[row + 1] += mine[other] != row
    return found


@compiled
def _link(  # noqa: PLR0917 - the arrays of a compiled loop
    near: Numbers,
    count: int,
    starts: Ids,
    others: Numbers,
    ends: Ids,
    nodes: Numbers,
    counts: npt.NDArray[np.uint8],
    values: Weights,
    degrees: Weights,
) -> None:
    """Write the neighbours of each row in ascending order, what they share with it, and its degree."""
    mine = np.full(len(near), -1, np.int32)
    for row in range(len(near)):
        end = ends[row]
        for place in range(count):
            mine[near[row, place]] = row
            nodes[end] = near[row, place]
            end += 1
        for other in others[starts[row] : starts[row + 1]]:
            if mine[other] != row:
                nodes[end] = other
                end += 1
        mine[row] = row
        nodes[ends[row] : end].sort()
        for edge in range(ends[row], end):
            other = nodes[edge]
            shared = int(mine[other] == row)
            for place in range(count):
                shared += mine[near[other, place]] == row
            counts[edge] = shared
            degrees[row] += values[shared]


@compiled
def _count_kept(starts: Ids, nodes: Numbers, kept: Ids, number: Numbers, sizes: Ids) -> None:
    """Neighbours of each kept node that are kept."""
    for place in range(len(kept)):
        for other in nodes[starts[kept[place]] : starts[kept[place] + 1]]:
            sizes[place + 1] += number[other] >= 0


@compiled
def _take_kept(  # noqa: PLR0917 - the arrays of a compiled loop
    starts: Ids,
    nodes: Numbers,
    weights: npt.NDArray[np.uint8],
    values: Weights,
    kept: Ids,
    number: Numbers,
    found: Numbers,
    of_edge: npt.NDArray[np.uint8],
    degrees: Weights,
) -> None:
    """Write the neighbours of the kept nodes that are kept, their weights, and their degrees."""
    done = 0
    for place in range(len(kept)):
        for edge in range(starts[kept[place]], starts[kept[place] + 1]):
            if number[nodes[edge]] >= 0:
                found[done], of_edge[done] = number[nodes[edge]], weights[edge]
                degrees[place] += edge_weight(weights, values, edge)
                done += 1
