"""Label errors, slowly: the rules of `slots.label_errors*` and of the peers, one example and one slot at a time."""

import math

import numpy as np
import torch
from scipy.stats import nbinom


def noise_matrix(counts, strengths):
    """Empirical Bayes with negative binomial marginals, cell by cell; the largest strength within 1.92 of the best."""
    n = len(counts)
    cells = [(i, j) for i in range(n) for j in range(n) if i != j]
    mean = max(sum(counts[i][j] for i, j in cells), 0.5) / max(sum(counts[i].sum() for i, j in cells), 1)
    found = []
    for a in strengths:
        b = a / mean
        found.append(sum(nbinom.logpmf(counts[i][j], a, b / (b + counts[i].sum())) for i, j in cells))
    strength = max(a for a, likelihood in zip(strengths, found, strict=True) if likelihood >= max(found) - 1.92)
    matrix = np.zeros((n, n))
    for i, j in cells:
        matrix[i, j] = (counts[i][j] + strength) / (counts[i].sum() + strength / mean)
    for i in range(n):
        matrix[i] *= min(1, 0.9 / matrix[i].sum())
        matrix[i, i] = 1 - matrix[i].sum()
    return matrix


def suspicion(probabilities, y, matrix):
    """Bayes' rule, example by example."""
    found = []
    for p, given in zip(probabilities, y, strict=True):
        joint = [p[c] * matrix[c, given] for c in range(len(p))]
        found.append(sum(joint[c] for c in range(len(p)) if c != given) / sum(joint))
    return np.array(found)


def watched(linear_network, x, y, *, epochs, batches, rate, seed):
    """The notes of a training on feature rows without augmentation; each example is asked alone, before its step."""
    torch.manual_seed(seed)
    last = torch.nn.Linear(linear_network(torch.from_numpy(x[:1])).shape[1], int(y.max()) + 1)
    both = torch.nn.Sequential(linear_network, last)
    optimizer = torch.optim.Adam(both.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    rng, notes = np.random.default_rng(seed), [[] for _ in x]
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for batch in np.array_split(order, batches):
            for i in batch:
                if epoch >= epochs // 2:
                    with torch.no_grad():
                        notes[i].append(both(torch.from_numpy(x[i : i + 1])).log_softmax(1)[0].double().numpy())
            optimizer.zero_grad()
            logits = both(torch.from_numpy(x[batch]))
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[batch])).backward()
            optimizer.step()
            schedule.step()
    mean = np.array([np.mean(of, 0) for of in notes])
    return mean - np.log(np.exp(mean).sum(1, keepdims=True))


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def n_displaced(x, y, weights, slot_labels):
    """For each example, over slots of other labels, the slot's own examples that are less similar than it."""
    owners = []
    for row, label in zip(x, y, strict=True):
        own = [(-cosine(row, w), k) for k, w in enumerate(weights) if slot_labels[k] == label]
        owners.append(min(own)[1] if own else None)
    return np.array(
        [
            sum(
                owners[j] == k and cosine(x[j], w) < cosine(x[i], w)
                for k, w in enumerate(weights)
                if slot_labels[k] != y[i]
                for j in range(len(x))
            )
            for i in range(len(x))
        ]
    )


def damages(x, y, head, listed, example):
    """(slot, radians, matches) of every slot that a listed example holds back."""
    trusted = [i for i in range(len(x)) if i not in listed]
    found = []
    for k in range(head.n_slots):
        w, c = head.weights.detach()[k].numpy(), head.centres[k].numpy()
        label, support = int(head.labels[k]), float(head.support_thresholds[k])
        if label == y[example]:
            continue
        rivals = [cosine(x[i], w) for i in trusted if y[i] != label]
        limit, score = max(rivals, default=-1.0), cosine(x[example], w)
        if score <= limit:
            continue
        gained = [i for i in trusted if y[i] == label and limit < cosine(x[i], w) <= score]
        matches = sum(cosine(x[i], c) > support for i in gained)
        found.append((k, math.acos(limit) - math.acos(score), matches))
    return sorted(found, key=lambda it: (-it[2], -it[1], it[0]))


def nearest(x, y, listed, example, *, same):
    """(id, radians) of the nearest trusted example of the same or of another label."""
    rows = [i for i in range(len(x)) if i not in listed and (y[i] == y[example]) == same]
    best = max(rows, key=lambda i: cosine(x[i], x[example]))
    return best, math.acos(min(1.0, cosine(x[best], x[example])))
