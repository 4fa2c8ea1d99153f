"""The head as ONNX: the exact rule of `slots.head.decision` in float64, from view features to answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protocols.app.onnx_graph.nodes import Nodes
from slots.features.whitening import Whitening
from slots.head.caps import SlotCaps
from slots.head.pooled_answers import PooledSlots
from slots.head.recalling.recall import NEAR, Recall
from slots.head.similarities import inverse_lengths

_NONE = -1.0  # depths lie in [0, 2]
_BELOW = -2.0  # cosines lie in [-1, 1]


@dataclass(frozen=True)
class Answered:
    """Names of what the head computes: int64, int8, bool, int64 and int64, all of shape (batch,)."""

    label: str
    answer: str
    matched: str
    slot: str
    pooled_label: str


def add_whitening(add: Nodes, features: str, whitening: Whitening) -> str:
    """What `slots.features.whitening` does: float64 within, rounded to float32."""
    wide = add("Sub", add.cast(features, np.float64), add.constant(whitening.mean.cpu().numpy(), np.float64))
    white = add("MatMul", wide, add.constant(whitening.matrix.cpu().numpy(), np.float64))
    if whitening.offset is not None:
        white = add("Add", white, add.constant(whitening.offset.cpu().numpy(), np.float64))
    return add.cast(white, np.float32)


def add_decision(add: Nodes, features: str, caps: SlotCaps) -> Answered:
    """The answers of slots.

    Parameters
    ----------
    add : Nodes
        The graph.
    features : str
        Float32 of shape (batch, view, feature).
    caps : SlotCaps
        At least one slot, on the CPU.

    Returns
    -------
    Answered

    Notes
    -----
    The deepest slot is found without an arc cosine, which onnxruntime has in float32 alone. With ``m`` the angle inside
    a cap, ``sin m`` and ``cos m`` follow from cosines by products. ``sin m / (sin m + |cos m|)``, or 2 minus that where
    ``cos m`` is negative, rises with ``m`` over all of [0, pi].
    """
    unit = _units(add, add.cast(features, np.float64))
    weight_scores, centre_scores = _cosines(add, unit, caps.weights), _cosines(add, unit, caps.centres)
    inside = [
        add("Greater", scores, add.constant(limit.double().numpy(), np.float64))
        for scores, limit in ((weight_scores, caps.precision), (centre_scores, caps.support))
    ]
    fires = _oldest(add, add("And", *inside), caps.generations)
    depths = [_depth(add, weight_scores, caps.precision), _depth(add, centre_scores, caps.support)]
    depth = add("Where", fires, add("Min", *depths), add.constant(_NONE, np.float64))
    best = add.biggest(depth, 1)  # of the views
    slot = add("ArgMax", best, axis=1, keepdims=0)
    labels = add.constant(caps.labels.numpy(), np.int64)
    label = add("Gather", labels, slot)
    fired = add("Greater", best, add.constant(_NONE / 2, np.float64))
    other = add("And", fired, add("Not", add("Equal", labels, add.column(label))))
    matched, ambiguous = (add.cast(add.biggest(add.cast(it, np.int32), 1), np.bool_) for it in (fired, other))
    guess, pooled_label, nearest = _guess(add, features, add.biggest(weight_scores, 1), caps)
    kinds = [add.constant(kind, np.int32) for kind in (0, 1, 2)]  # older onnxruntimes choose between no int8
    answer = add("Where", ambiguous, kinds[1], add("Where", matched, kinds[2], kinds[0]))
    return Answered(
        label=add("Where", matched, label, guess),
        answer=add.cast(answer, np.int8),
        matched=matched,
        slot=add("Where", matched, slot, nearest),
        pooled_label=pooled_label,
    )


def _units(add: Nodes, wide: str) -> str:
    """Rows of length 1; a zero row stays zero."""
    length = add("Sqrt", add("ReduceSum", add("Mul", wide, wide), add.axes(-1), keepdims=1))
    there = add("Greater", length, add.constant(0.0, np.float64))
    return add("Div", wide, add("Where", there, length, add.constant(1.0, np.float64)))


def _cosines(add: Nodes, unit: str, vectors: Tensor) -> str:
    """Cosines to all vectors, which are stored as they are, in float32, and brought to length 1 in float64."""
    wide = add.cast(add.constant(vectors.float().numpy().T, np.float32), np.float64)
    inverse = inverse_lengths(vectors, at_once=4096).numpy()
    return add("Mul", add("MatMul", unit, wide), add.constant(inverse, np.float64))


def _oldest(add: Nodes, fires: str, generations: Tensor) -> str:
    """Of the slots that fire those of the oldest generation."""
    if len(generations.unique()) == 1:
        return fires
    ages = add.constant(generations.numpy(), np.int64)
    never = add.constant(np.iinfo(np.int64).max, np.int64)
    oldest = add("ReduceMin", add("Where", fires, ages, never), add.axes(1, 2), keepdims=1)
    return add("And", fires, add("Equal", ages, oldest))


def _depth(add: Nodes, cosines: str, limits: Tensor) -> str:
    """A number that rises with the angle inside a cap, for inputs inside of it; see `add_decision`."""
    radius = limits.double().clamp(-1, 1).numpy()
    across = add.constant(np.sqrt((1 - radius) * (1 + radius)), np.float64)
    along, one = add.constant(radius, np.float64), add.constant(1.0, np.float64)
    cosine = add("Clip", cosines, add.constant(-1.0, np.float64), one)
    sine = add("Sqrt", add("Mul", add("Sub", one, cosine), add("Add", one, cosine)))
    up = add("Sub", add("Mul", across, cosine), add("Mul", along, sine))
    up = add("Max", up, add.constant(0.0, np.float64))  # rounding next to the border
    right = add("Add", add("Mul", along, cosine), add("Mul", across, sine))
    share = add("Div", up, add("Add", up, add("Abs", right)))
    behind = add("Less", right, add.constant(0.0, np.float64))
    return add("Where", behind, add("Sub", add.constant(2.0, np.float64), share), share)


def _guess(add: Nodes, features: str, scores: str, caps: SlotCaps) -> tuple[str, str, str]:
    """Label where no slot fires, label of the best pooled score, and the slot that is named."""
    pooled = PooledSlots.of(caps.weights, caps.labels, caps.pooled)
    order = pooled.slots.numpy()
    place = np.repeat(np.arange(len(pooled.classes)), np.diff(pooled.starts))
    mine = add("Gather", scores, add.constant(order, np.int64), axis=1)
    best = add("ArgMax", _pooled(add, mine, place, caps.beta), axis=1, keepdims=0)
    pooled_label = add("Gather", add.constant(pooled.classes, np.int64), best)
    known = None if caps.recall is None else torch.isin(caps.recall.labels, caps.labels)
    if caps.recall is None or known is None or not bool(known.any()):
        near = _first_best(add, mine, add("Equal", add.constant(place, np.int64), add.column(best)))
        return pooled_label, pooled_label, add("Gather", add.constant(order, np.int64), near)
    label = _recalled(add, features, caps.recall, pooled_label, known)
    of_label = add("Equal", add.constant(caps.labels.numpy(), np.int64), add.column(label))
    return label, pooled_label, _first_best(add, _rounded(add, scores), of_label)


def _pooled(add: Nodes, scores: str, place: np.ndarray, beta: float) -> str:
    """Softmax-weighted means of the scores of each class, as `slots.head.pooling.softmax_pool`."""
    rows = add("Gather", add("Shape", scores), add.constant([0], np.int64))
    shape = add("Concat", rows, add.constant([int(place[-1]) + 1], np.int64), axis=0)
    where = add("Expand", add.constant(place[None], np.int64), add("Shape", scores))

    def gathered(start: float, values: str, reduction: str) -> str:
        base = add("Expand", add.constant(start, np.float64), shape)
        return add("ScatterElements", base, where, values, axis=1, reduction=reduction)

    top = add("Gather", gathered(_BELOW, scores, "max"), add.constant(place, np.int64), axis=1)
    odds = add("Exp", add("Mul", add("Sub", scores, top), add.constant(beta, np.float64)))
    return add("Div", gathered(0.0, add("Mul", odds, scores), "add"), gathered(0.0, odds, "add"))


def _first_best(add: Nodes, scores: str, among: str) -> str:
    """Place of the largest score among some, of equals the first."""
    return add("ArgMax", add("Where", among, scores, add.constant(-1e300, np.float64)), axis=1, keepdims=0)


def _rounded(add: Nodes, scores: str) -> str:
    """Scores in steps within which they count as equal."""
    return add("Round", add("Div", scores, add.constant(NEAR, np.float64)))


def _recalled(add: Nodes, features: str, recall: Recall, pooled_label: str, known: Tensor) -> str:
    """The best label of what is remembered, as `slots.head.recalling` ranks them."""
    wide = add.cast(features, np.float64)
    if recall.back is not None:
        there = add("Greater", add.biggest(add("Abs", wide), -1, keep=True), add.constant(0.0, np.float64))
        matrix, shift = (add.constant(it.numpy(), np.float64) for it in recall.back)
        wide = add("Where", there, add("Add", add("MatMul", wide, matrix), shift), add.constant(0.0, np.float64))
    examples = add.constant(recall.examples.numpy().T, np.float64)
    near = add.biggest(add("MatMul", _units(add, wide), examples), 1)
    kernel = add("Mul", add("Sub", near, add.constant(1.0, np.float64)), add.constant(2 * recall.gamma, np.float64))
    weights = add.cast(add.constant(recall.coefficients[:, known].numpy(), np.float32), np.float64)
    scores, labels = add("MatMul", add("Exp", kernel), weights), add.constant(recall.labels[known].numpy(), np.int64)
    said = add.cast(add("Equal", labels, add.column(pooled_label)), np.float64)
    scores = add("Add", scores, add("Mul", said, add.constant(max(recall.trust, 0.0), np.float64)))
    return add("Gather", labels, add("ArgMax", _rounded(add, scores), axis=1, keepdims=0))
