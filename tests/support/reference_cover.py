"""Set cover, written slowly from the definitions."""

import itertools

import numpy as np


def greedy(covers, *, max_slots=None, min_gain=1, coverage=1.0):
    """Most open examples first, ties to the lowest index; one pick a step, all gains computed anew."""
    covers = np.asarray(covers)
    n_candidates, n_examples = covers.shape
    still_open = set(range(n_examples))
    picks = []
    while max_slots is None or len(picks) < max_slots:
        if n_examples - len(still_open) >= coverage * n_examples - 1e-9 * n_examples:
            break
        best, best_gain = None, min_gain - 1
        for i in range(n_candidates):
            gain = sum(bool(covers[i, j]) for j in still_open)
            if gain > best_gain:
                best, best_gain = i, gain
        if best is None:
            break
        picks.append(best)
        still_open -= {j for j in range(n_examples) if covers[best, j]}
    return picks


def smallest_cover_size(covers):
    """Size of a smallest cover of all that can be covered, by trying every subset."""
    covers = np.asarray(covers)
    coverable = covers.any(0)
    for size in range(covers.shape[0] + 1):
        for subset in itertools.combinations(range(covers.shape[0]), size):
            if np.array_equal(covers[list(subset)].any(0), coverable):
                return size
    raise AssertionError("all candidates together cover what can be covered")


def cosines(a, b):
    """Cosine of every row to every row, in float64; 0 for zero rows."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(a @ b.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def caps(candidates, candidate_labels, examples, labels):
    """Float32 just above the largest cosine to another label (by 1e-9, then to the next float)."""
    scores = cosines(candidates, examples)
    thresholds = np.full(len(scores), -np.inf, np.float32)
    for i in range(len(scores)):
        foreign = scores[i][labels != candidate_labels[i]]
        if len(foreign):
            thresholds[i] = np.nextafter(np.float32(foreign.max() + 1e-9), np.float32(np.inf))
    return thresholds


def inside(candidates, thresholds, views):
    """Whether some view of an example lies above a candidate's threshold by more than float64 rounding."""
    scores = np.stack([cosines(candidates, views[:, v]) for v in range(views.shape[1])])
    return (scores > np.asarray(thresholds, np.float64)[:, None] + 1e-12).any(0)
