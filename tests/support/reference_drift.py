"""Online ranks and jumpers once more, slowly and literally."""

import math


def online_p_values(calibration, scores, ties, forgotten, capacity):
    """Vovk's smoothed p-value against a plain list of all that is kept; ties go behind their equals."""
    kept, found = sorted(calibration), []
    for score, tie, place in zip(scores, ties, forgotten, strict=True):
        above = sum(it > score for it in kept)
        equal = sum(it == score for it in kept)
        found.append((above + (1 - tie) * (equal + 1)) / (len(kept) + 1))
        kept = sorted([*kept, score])
        if len(kept) > capacity:
            kept.pop(int(place * len(kept)))
    return found, kept


def published_jumper(p_values, slopes, jump):
    """Algorithm 1 of Vovk et al. 2021, in plain numbers: S_1, S_2, ..."""
    capital = {slope: 1 / len(slopes) for slope in slopes}
    whole, found = 1.0, []
    for p in p_values:
        for slope in slopes:
            capital[slope] = (1 - jump) * capital[slope] + jump / len(slopes) * whole
        for slope in slopes:
            capital[slope] *= 1 + slope * (p - 0.5)
        whole = sum(capital.values())
        found.append(whole)
    return found


def jumper_of_functions(p_values, functions, jump):
    """The same for any betting functions."""
    capital = [1 / len(functions)] * len(functions)
    whole, found = 1.0, []
    for p in p_values:
        capital = [
            ((1 - jump) * it + jump / len(functions) * whole) * f(p) for it, f in zip(capital, functions, strict=True)
        ]
        whole = sum(capital)
        found.append(whole)
    return found


def sleeping_jumper(p_values, functions, jump, asleep, wake):
    """The mean over the item at which a fresh jumper begins: one jumper for each, weighted by what wakes there."""
    weights, sleeping = [], asleep
    for n in range(len(p_values)):
        weights.append(sleeping * wake / (n + 100))
        sleeping -= weights[-1]
    weights[0] += 1 - asleep
    runs = [jumper_of_functions(p_values[start:], functions, jump) for start in range(len(p_values))]
    found = []
    for n in range(len(p_values)):
        begun = math.fsum(weights[start] * runs[start][n - start] for start in range(n + 1))
        found.append(begun + (1 - math.fsum(weights[: n + 1])))
    return found
