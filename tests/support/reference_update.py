"""The update's rules a second time: loops, exact fractions, and every subset."""

import itertools
import math
from fractions import Fraction

from support.reference_head import cosine


def covers(features, unusable, radius, stride):
    """``{candidate: set of examples}``: a cap around a candidate's first view holds the examples with a view in it."""
    usable = [i for i in range(len(features)) if i not in unusable]
    found = {}
    for j in usable[::stride]:
        axis = features[j][0]
        held = {i for i in range(len(features)) if max(cosine(view, axis) for view in features[i]) > math.cos(radius)}
        found[j] = held | {j}
    return found


def greedy(sets, *, budget, least):
    """Picks, their gains and the next gain: the largest gain first, the lowest candidate among equals."""
    picks, gains, held = [], [], set()
    while True:
        best, most = None, 0
        for j in sorted(sets):
            gain = len(sets[j] - held)
            if gain > most:
                best, most = j, gain
        if best is None or most < least or (budget is not None and len(picks) >= budget):
            return picks, gains, most
        picks.append(best)
        gains.append(most)
        held |= sets[best]


def best_coverage(sets, n):
    """Most examples that any ``n`` of the sets hold together."""
    return max((len(set().union(*chosen)) for chosen in itertools.combinations(sets.values(), n)), default=0)


def exact_angle(a, b):
    """Angle between two vectors of floats: squares are exact fractions, one root and one arc function round.

    Good to 1e-15 everywhere, next to 0 and pi too: there it comes from the sine.
    """
    a, b = [Fraction(float(v)) for v in a], [Fraction(float(v)) for v in b]
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    lengths = sum(p * p for p in a) * sum(q * q for q in b)
    cosine2 = dot * dot / lengths
    if cosine2 < Fraction(1, 2):
        return math.acos(math.copysign(math.sqrt(float(cosine2)), float(dot)))
    small = math.asin(math.sqrt(float(1 - cosine2)))
    return small if dot > 0 else math.pi - small


def ball_radius(threshold):
    """Radius of the cap ``cosine > threshold``; negative where there is no such point."""
    return -1.0 if threshold >= 1 else math.acos(max(-1.0, float(threshold)))


def clearance(caps, new, old):
    """Radians between the support ball of a slot and the nearer-fitting ball of another, as stored; < 0: they meet."""
    reach = ball_radius(float(caps.support[new]))
    if reach < 0:
        return math.inf
    gaps = []
    for axes, limits in ((caps.weights, caps.precision), (caps.centres, caps.support)):
        radius = ball_radius(float(limits[old]))
        gaps.append(
            math.inf if radius < 0 else exact_angle(caps.centres[new].tolist(), axes[old].tolist()) - radius - reach
        )
    return max(gaps)
