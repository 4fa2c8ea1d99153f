"""Spreading and asking, slowly and literally, in float64."""

import numpy as np


def neighbours(unit, count):
    """Most similar other rows of each row."""
    found = []
    for i, row in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        found.append(sorted(others, key=lambda j: -float(unit[j] @ row))[:count])
    return found


def self_train(pool, given, config):
    """Labels and margins of the open examples."""
    known = [int(given[row]) for row in pool.open]
    old = [int(pool.prediction.labels[row]) for row in pool.open]
    labels = list(old)
    weights = [1.0 if p > config.min_p_value else 0.0 for p in pool.familiar]
    for i, label in enumerate(known):
        if label >= 0:
            for j in pool.neighbours[i][: config.n_neighbours]:
                labels[j], weights[j] = label, 1.0
    classes = sorted({*pool.anchor_labels.tolist(), *old, *(label for label in known if label >= 0)})
    z = pool.activations.double().numpy()
    anchors = pool.anchors.double().numpy()
    margins = [0.0] * len(labels)
    for _ in range(config.n_iter):
        for i, label in enumerate(known):
            if label >= 0:
                labels[i], weights[i] = label, config.label_weight
        rows = [*anchors, *z]
        targets = [*pool.anchor_labels.tolist(), *labels]
        votes = [*([1.0] * len(anchors)), *weights]
        mass = {c: max(sum(v for v, t in zip(votes, targets, strict=True) if t == c), 1e-9) for c in classes}
        votes = [v * mass[t] ** -config.class_balance for v, t in zip(votes, targets, strict=True)]
        used = [(r, v, t) for r, v, t in zip(rows, votes, targets, strict=True) if v > 0]
        mean = sum(v for _, v, _ in used) / len(used)
        gram = sum(v / mean * np.outer(r, r) for r, v, _ in used) + config.alpha * len(used) * np.eye(z.shape[1])
        side = np.stack([sum(v / mean * r * (t == c) for r, v, t in used) for c in classes], 1)
        scores = z @ np.linalg.solve(gram, side)
        for i in range(len(labels)):
            order = np.argsort(-scores[i])
            fresh = [k for k in range(len(classes)) if classes[k] not in pool.known]
            familiar = max(scores[i][k] for k in range(len(classes)) if classes[k] in pool.known)
            if fresh and max(scores[i][k] for k in fresh) > familiar:
                labels[i] = classes[max(fresh, key=lambda k: scores[i][k])]
                lead = scores[i][order[0]] - scores[i][order[1]]
            else:
                labels[i] = old[i]
                rival = max(scores[i][k] for k in fresh) if fresh else scores[i][order[1]]
                lead = familiar - rival
            margins[i] = min(1.0, max(0.0, lead))
            weights[i] = min(1.0, 2 * margins[i])
    for i, label in enumerate(known):
        if label >= 0:
            labels[i], margins[i] = label, 1.0
    return labels, margins


def ask(doubt, told, around, count):
    """Greedy coverage of doubt: a pick takes the doubt of those it is near to or that are near to it."""
    left, barred, picks = list(doubt), set(np.flatnonzero(told)), []
    for _ in range(count):
        free = [i for i in range(len(left)) if i not in barred]
        if not free:
            break
        gains = {i: left[i] + sum(left[j] for j in around[i]) for i in free}
        best = max(free, key=lambda i: (gains[i], -i))
        picks.append(best)
        barred.add(best)
        for j in range(len(left)):
            if j == best or j in around[best] or best in around[j]:
                left[j] = 0.0
    return picks
