"""The multi-cover by its definition, for comparison."""

import numpy as np


def slow_multi_cover(fires, times, max_picks, min_gain, cosines=None, apart=1.0):
    """Count anew what every candidate would add; picks, and the cells covered of each example."""
    have = np.zeros(fires.shape[1:], bool)
    picks = []
    while len(picks) < max_picks:
        served = np.minimum(times, have.sum(1)).sum()
        gains = [int(np.minimum(times, (have | mine).sum(1)).sum() - served) for mine in fires]
        if cosines is not None:
            gains = [0 if any(cosines[k, pick] > apart for pick in picks) else gain for k, gain in enumerate(gains)]
        if not gains or max(gains) < min_gain:
            break
        picks.append(int(np.argmax(gains)))
        have |= fires[picks[-1]]
    return picks, have.sum(1).tolist()
