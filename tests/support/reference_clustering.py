"""One step of learning slots without labels a second time: loops over single numbers, gradients by differences."""

import math

import numpy as np


def score(x, w, metric):
    """Inner product (inputs are unit vectors under cosine), or negative squared distance."""
    if metric == "cosine":
        return sum(a * b for a, b in zip(x, w, strict=True))
    return -sum((a - b) ** 2 for a, b in zip(x, w, strict=True))


def threshold(scores, share):
    """The score that ``floor(share n)`` inputs reach, at least one."""
    return sorted(scores, reverse=True)[max(1, math.floor(share * len(scores) + 1e-9)) - 1]


def mean_and_deviation(scores):
    """Of a slot's scores over the batch; a deviation of 0 counts as 1."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
    return mean, deviation or 1.0


def missing(batch, slots, *, share, metric, room):
    """Places of the inputs that become slots: greedy cover of those that no slot matches."""
    matched = set()
    for w in slots:
        scores = [score(x, w, metric) for x in batch]
        matched |= {i for i, s in enumerate(scores) if s >= threshold(scores, share)}
    unmatched = [i for i in range(len(batch)) if i not in matched]
    covers = []
    for candidate in unmatched:
        scores = [score(x, batch[candidate], metric) for x in batch]
        limit = threshold(scores, share)
        covers.append({i for i in unmatched if scores[i] >= limit})
    picked, open_rows = [], set(unmatched)
    while len(picked) < room:
        gains = [len(cover & open_rows) for cover in covers]
        if not gains or max(gains) == 0:
            break
        best = gains.index(max(gains))
        picked.append(unmatched[best])
        open_rows -= covers[best]
    return picked


def responses(batch, slots, *, metric, normalized):
    """Scores of each input for each slot, in the form in which the best slot is taken."""
    columns = []
    for w in slots:
        scores = [score(x, w, metric) for x in batch]
        if normalized:
            mean, deviation = mean_and_deviation(scores)
            scores = [(s - mean) / deviation for s in scores]
        columns.append(scores)
    return columns


def winners(columns):
    """Best slot of each input; ties go to the lowest."""
    owners = []
    for i in range(len(columns[0])):
        row = [column[i] for column in columns]
        owners.append(row.index(max(row)))
    return owners


def winning_mean(batch, w, mine, *, metric, normalized):
    """Mean response of one slot to the inputs it won: its part of the loss, with the sign changed."""
    column = responses(batch, [w], metric=metric, normalized=normalized)[0]
    return sum(column[i] for i in mine) / len(mine)


def step(batch, slots, *, share, metric, normalized, lr, grow, max_slots=math.inf):
    """Slots after one step, the inputs each won, and the loss."""
    batch = [np.asarray(x, np.float64) for x in batch]
    slots = [np.asarray(w, np.float64) for w in slots]
    if grow:
        room = max_slots - len(slots)
        slots += [batch[i].copy() for i in missing(batch, slots, share=share, metric=metric, room=room)]
    owners = winners(responses(batch, slots, metric=metric, normalized=normalized))
    moved, wins, parts = [], [], []
    for k, w in enumerate(slots):
        mine = [i for i, owner in enumerate(owners) if owner == k]
        wins.append(len(mine))
        if not mine:
            moved.append(w)
            continue
        options = {"metric": metric, "normalized": normalized}
        parts.append(winning_mean(batch, w, mine, **options))
        gradient = np.zeros_like(w)
        for d in range(len(w)):
            nudge = np.zeros_like(w)
            nudge[d] = 1e-6
            up, down = (winning_mean(batch, w + sign * nudge, mine, **options) for sign in (1, -1))
            gradient[d] = (up - down) / 2e-6
        if normalized:
            gradient *= mean_and_deviation([score(x, w, metric) for x in batch])[1]
        after = w + lr * gradient
        moved.append(after / math.sqrt(float(after @ after)) if metric == "cosine" else after)
    return np.array(moved), wins, -sum(parts) / len(parts)
