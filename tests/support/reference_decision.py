"""Answers in float64 throughout, with NumPy's sorts: what `slots.head.decide` must equal to the bit."""

import math

import numpy as np
import torch

from slots.head.deciding.exact import exact_margins
from slots.head.decision import best_pairs
from slots.head.pooling import class_groups, softmax_pool
from slots.head.prediction import Answer, Prediction
from slots.head.similarities import normalize


def decide(features, caps):
    """Best match of every example, generation and label; then the pooled score of what nothing matches."""
    n = len(features)
    out = Prediction(
        labels=np.zeros(n, np.int64),
        answers=np.zeros(n, np.int8),
        slots=np.full(n, -1, np.int64),
        margins=np.full(n, -np.inf),
        runner_up_slots=np.full(n, -1, np.int64),
        runner_up_margins=np.full(n, -np.inf),
    )
    answer_matched(best_pairs(features, caps), caps, out)
    unmatched = np.flatnonzero(~out.matched)
    if len(unmatched):
        answer_unmatched(features, caps, unmatched, out)
    return out


def answer_matched(pairs, caps, out):
    """By sorting all pairs."""
    labels, generations = caps.labels.numpy(), caps.generations.numpy()
    example, slot, margin = pairs.examples.numpy(), pairs.slots.numpy(), pairs.margins.numpy()
    oldest = np.full(len(out), np.iinfo(np.int64).max)
    np.minimum.at(oldest, example, generations[slot])
    speaks = generations[slot] == oldest[example]
    example, slot, margin = example[speaks], slot[speaks], margin[speaks]
    order = np.lexsort((slot, -margin, example))
    example, slot, margin = example[order], slot[order], margin[order]
    rows, first = np.unique(example, return_index=True)
    out.labels[rows], out.slots[rows], out.margins[rows] = labels[slot[first]], slot[first], margin[first]
    out.answers[rows] = Answer.MATCHED
    rival = np.flatnonzero(labels[slot] != out.labels[example])
    rival = rival[np.lexsort((slot[rival], -margin[rival], example[rival]))]
    rows, first = np.unique(example[rival], return_index=True)
    out.runner_up_slots[rows], out.runner_up_margins[rows] = slot[rival[first]], margin[rival[first]]
    out.answers[rows] = Answer.AMBIGUOUS


def answer_unmatched(features, caps, rows, out):
    """By the float64 product with every slot."""
    block = features[torch.from_numpy(rows)]
    # Row by row: a product of matrices may round equal slots in two ways, by where they stand.
    products = normalize(block.double())[:, :, None] * normalize(caps.weights.double())
    scores, views = products.sum(-1).max(1)
    pooled = caps.pooled if bool(caps.pooled.any()) else torch.ones_like(caps.pooled)
    classes = caps.labels[pooled].unique()
    members = class_groups(torch.where(pooled, caps.labels, caps.labels.min() - 1), classes)
    ranked = softmax_pool(scores, members, beta=caps.beta).argsort(dim=1, descending=True, stable=True)[:, :2]
    here = torch.arange(len(rows))
    fields = [(out.slots, out.margins), (out.runner_up_slots, out.runner_up_margins)]
    for place, (slot_field, margin_field) in enumerate(fields[: ranked.shape[1]]):
        group = members[ranked[:, place]]
        closest = scores.gather(1, group.clamp_min(0)).masked_fill(group < 0, -math.inf).argmax(1)
        slot = group[here, closest]
        slot_field[rows] = slot.numpy()
        margin_field[rows] = exact_margins(block, caps, (here, views[here, slot], slot)).numpy()
    out.labels[rows] = classes[ranked[:, 0]].numpy()
