"""The slot graph a second time: loops over pairs, one input at a time."""

import math


def modularity(weights, communities, resolution=1.0):
    """Newman's sum over ordered pairs of nodes."""
    n = len(weights)
    total = sum(weights[i][j] for i in range(n) for j in range(n))
    degrees = [sum(row) for row in weights]
    found = 0.0
    for i in range(n):
        for j in range(n):
            if communities[i] == communities[j]:
                found += weights[i][j] / total - resolution * degrees[i] * degrees[j] / total**2
    return found


def partitions(n):
    """All partitions of n nodes: each node joins an earlier community or starts one."""
    if n == 0:
        yield ()
        return
    for earlier in partitions(n - 1):
        for number in range(max(earlier, default=-1) + 2):
            yield (*earlier, number)


def bridges(angles, near, n_slots, sharpness):
    """Each input adds (a1 / a2) ** sharpness between its two nearest slots."""
    found = [[0.0] * n_slots for _ in range(n_slots)]
    for (first, second), (a, b) in zip(near, angles, strict=True):
        strength = (a / b) ** sharpness
        found[first][second] += strength
        found[second][first] += strength
    return found


def cosine(x, w):
    """0 for a row of zeros."""
    norm = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in w))
    return sum(a * b for a, b in zip(x, w, strict=True)) / norm if norm else 0.0


def pooled(x, weights, communities, beta):
    """SoftMaxPool of the cosines in each community."""
    found = []
    for community in range(max(communities) + 1):
        scores = [cosine(x, w) for w, c in zip(weights, communities, strict=True) if c == community]
        shares = [math.exp(beta * s) for s in scores]
        found.append(sum(e * s for e, s in zip(shares, scores, strict=True)) / sum(shares))
    return found


def one_pass(rows, starts):
    """Normalised means of the rows nearest to each start; starts that win nothing are gone."""
    owned = {}
    for row in rows:
        scores = [cosine(row, start) for start in starts]
        owned.setdefault(scores.index(max(scores)), []).append(row)
    means = []
    for number in sorted(owned):
        total = [sum(column) for column in zip(*owned[number], strict=True)]
        norm = math.sqrt(sum(value * value for value in total))
        means.append([value / norm for value in total])
    return means


def silhouette(unit, groups):
    """For each row: own mean without it against the nearest other mean, by cosine; 0 for a row alone."""
    found = []
    for i, row in enumerate(unit):
        own = [unit[j] for j in range(len(unit)) if groups[j] == groups[i] and j != i]
        if not own:
            found.append(0.0)
            continue
        a = 1 - cosine(row, sum(own))
        b = min(1 - cosine(row, sum(unit[groups == other])) for other in set(groups.tolist()) - {int(groups[i])})
        found.append((b - a) / max(a, b))
    return found


def shared_neighbours(near):
    """Jaccard index of the sets of nearest rows, where one row is in the other's."""
    sets = [{i, *row} for i, row in enumerate(near.tolist())]
    found = [[0.0] * len(sets) for _ in sets]
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            if i != j and (j in one or i in other):
                found[i][j] = len(one & other) / len(one | other)
    return found
