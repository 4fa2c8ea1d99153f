"""The rules of the head a second time: loops over single numbers in float64, as the definitions read."""

import math

import numpy as np


def unit(vector):
    """The vector over its length; zero stays zero."""
    vector = np.asarray(vector, np.float64)
    length = math.sqrt(sum(float(v) * float(v) for v in vector))
    return vector / length if length > 0 else vector


def cosine(a, b):
    """Inner product of the two directions."""
    return float(sum(p * q for p, q in zip(unit(a), unit(b), strict=True)))


def precision_threshold(scores, own, precision):
    """Smallest score, or minus infinity, above which a share ``precision`` is own; the largest score if none."""
    best = max(scores, default=-math.inf)
    for threshold in sorted({-math.inf, *scores}):
        above = [o for s, o in zip(scores, own, strict=True) if s > threshold]
        if above and sum(above) >= precision * len(above):
            return threshold
    return best


def support_threshold(scores, quantile):
    """Score of the example after the ``floor(quantile n)`` lowest; 2 without examples."""
    if not scores:
        return 2.0
    return sorted(scores)[math.floor(quantile * len(scores))]


def pooled(scores, beta):
    """Softmax-weighted mean."""
    weights = [math.exp(beta * (s - max(scores))) for s in scores]
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


def angle(cosine_value):
    """Angle in radians."""
    return math.acos(min(1.0, max(-1.0, cosine_value)))


def slot_margin(views, caps, slot):
    """Largest margin over the views, and whether any view lies strictly inside both caps."""
    best, fires = -math.inf, False
    precision, support = float(caps.precision[slot]), float(caps.support[slot])
    for view in views:
        s, c = cosine(view, caps.weights[slot].numpy()), cosine(view, caps.centres[slot].numpy())
        depth = angle(precision) - angle(s)
        depth = min(depth, angle(support) - angle(c)) if support <= 1 else -math.inf
        best = max(best, depth)
        fires |= s > precision and c > support
    return best, fires


def decide_one(views, caps):
    """Label, kind (2 matched, 1 ambiguous, 0 unmatched) and slot of one input, as the design says."""
    labels, generations = caps.labels.tolist(), caps.generations.tolist()
    fired = []
    for slot in range(len(labels)):
        depth, fires = slot_margin(views, caps, slot)
        if fires:
            fired.append((generations[slot], -depth, slot))
    if fired:
        slot = min(fired)[2]
        oldest = min(fired)[0]
        kind = 2 if len({labels[k] for generation, _, k in fired if generation == oldest}) == 1 else 1
        return labels[slot], kind, slot
    best = {}
    for label in sorted(set(labels)):
        scores = [
            max(cosine(view, caps.weights[k].numpy()) for view in views)
            for k in range(len(labels))
            if labels[k] == label and bool(caps.pooled[k])
        ]
        if scores:
            best[label] = pooled(scores, caps.beta)
    return max(best, key=lambda label: (best[label], -label)), 0, None
