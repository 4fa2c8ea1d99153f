"""Thresholds and coverage of examples by the fused kernels: `slots.cover.coverage` on a GPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.cover.bits import CoverBlock
from slots.cover.fused.scores import SplitRows, foreign_maxima, packed_coverage
from slots.cover.fused.tiles import ClassTiles
from slots.cover.thresholds import ROUNDING, just_above
from slots.shapes import Features, Labels, SlotLabels, SlotVectors, Thresholds


def split_sides(
    candidates: SlotVectors, candidate_labels: SlotLabels, examples: Features, labels: Labels, *, symmetric: bool
) -> tuple[SplitRows, SplitRows]:
    """Both sides as the kernels of a GPU take them."""
    columns = SplitRows.of(examples, labels)
    return (columns if symmetric else SplitRows.of(candidates, candidate_labels)), columns


def fused_maxima(
    candidates: SlotVectors, candidate_labels: SlotLabels, examples: Features, labels: Labels, *, symmetric: bool
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
    """Largest float64 cosine of each candidate to an example of another label.

    Parameters
    ----------
    candidates, examples : float tensors of shape (row, feature)
        At least one each.
    candidate_labels, labels : int64 tensors of shape (row,)
        Theirs.
    symmetric : bool
        Whether the candidates are the examples.

    Returns
    -------
    order : int64 tensor of shape (row,)
        Candidates in the order of their labels.
    top : float64 tensor of shape (row,)
        In that order; minus infinity where there is no other label.
    """
    rows, columns = split_sides(candidates, candidate_labels, examples, labels, symmetric=symmetric)
    return rows.order, foreign_maxima(rows, columns)


def fused_blocks(rows: SplitRows, columns: SplitRows, limits: Float[Tensor, " candidate"]) -> list[CoverBlock]:
    """`coverage_bits` with one cap a candidate and one view an example, by the kernels of a GPU."""
    known, n_columns = columns.labels.unique_consecutive(return_counts=True)
    first = torch.searchsorted(rows.labels, known)
    last = torch.searchsorted(rows.labels, known, right=True)
    label_list, columns_a_class, starts, ends = torch.stack([known, n_columns, first, last]).tolist()
    rows_a_class = [end - start for start, end in zip(starts, ends, strict=True)]
    if sum(rows_a_class) < len(rows.labels):  # candidates of labels that no example has
        kept = torch.cat([torch.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        rows = rows.only(kept.to(limits.device))
    tiles = ClassTiles.of(rows_a_class, columns_a_class, symmetric=rows is columns)
    words = packed_coverage(rows, columns, limits[rows.order], tiles, rounding=ROUNDING)
    mine, own = rows.order.split(rows_a_class), columns.order.split(columns_a_class)
    return [CoverBlock(*parts) for parts in zip(label_list, mine, own, words, strict=True)]


@torch.no_grad()
def fused_class_coverage(features: Features, labels: Labels) -> tuple[Thresholds, list[CoverBlock]]:
    """`cap_thresholds` and `coverage_bits` of examples among themselves, by the kernels of a GPU.

    Parameters
    ----------
    features : float tensor of shape (example, feature)
        At least one, on a device that `has_fused_kernels`.
    labels : int64 tensor of shape (example,)
        Label of each example.

    Returns
    -------
    thresholds : float32 tensor of shape (example,)
    blocks : list of CoverBlock
    """
    rows = SplitRows.of(features, labels)
    known, counts = torch.stack(rows.labels.unique_consecutive(return_counts=True)).tolist()
    laid_out: list[ClassTiles] = []  # the host lays the tiles of the coverage out while the device looks for the maxima

    def lay_out() -> None:
        if not laid_out:
            laid_out.append(ClassTiles.of(counts, counts, symmetric=True))

    thresholds = just_above(foreign_maxima(rows, rows, meanwhile=lay_out), rows.order)
    words = packed_coverage(rows, rows, thresholds.double()[rows.order], laid_out[0], rounding=ROUNDING)
    ids = rows.order.split(counts)
    return thresholds, [CoverBlock(*parts) for parts in zip(known, ids, ids, words, strict=True)]
