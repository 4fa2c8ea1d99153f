"""Measures of likeness written out by loops, from the papers' formulas and not from our code."""

import itertools
import math


def kernel(rows):
    return [[sum(p * q for p, q in zip(x, y, strict=True)) for y in rows] for x in rows]


def unbiased_hsic(k, m):
    """Song et al. 2012, eq. 5: kernels without their diagonals."""
    n = len(k)
    k = [[0.0 if i == j else k[i][j] for j in range(n)] for i in range(n)]
    m = [[0.0 if i == j else m[i][j] for j in range(n)] for i in range(n)]
    trace = sum(k[i][j] * m[j][i] for i in range(n) for j in range(n))
    totals = sum(map(sum, k)) * sum(map(sum, m)) / ((n - 1) * (n - 2))
    paths = sum(k[h][i] * m[i][j] for h in range(n) for i in range(n) for j in range(n))
    return (trace + totals - 2 / (n - 2) * paths) / (n * (n - 3))


def biased_hsic(k, m):
    """Gretton et al. 2005: ``tr(K H L H) / (n - 1)^2``."""
    n = len(k)

    def centred(a):
        rows = [sum(row) / n for row in a]
        columns = [sum(a[i][j] for i in range(n)) / n for j in range(n)]
        mean = sum(rows) / n
        return [[a[i][j] - rows[i] - columns[j] + mean for j in range(n)] for i in range(n)]

    k, m = centred(k), centred(m)
    return sum(k[i][j] * m[j][i] for i in range(n) for j in range(n)) / (n - 1) ** 2


def cka(a, b, unbiased):
    hsic = unbiased_hsic if unbiased else biased_hsic
    k, m = kernel(a), kernel(b)
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def correlation(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
    return top / math.sqrt(sum((p - mx) ** 2 for p in x) * sum((q - my) ** 2 for q in y))


def best_matching(a, b):
    """The best of all one-to-one matchings of the columns of ``a`` with columns of ``b``."""
    first, second = list(zip(*a, strict=True)), list(zip(*b, strict=True))
    return max(
        sum(correlation(x, second[j]) for x, j in zip(first, order, strict=True)) / len(first)
        for order in itertools.permutations(range(len(second)), len(first))
    )
