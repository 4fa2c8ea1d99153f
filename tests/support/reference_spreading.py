"""Spreading and asking, slowly and literally, in float64."""

import numpy as np


def neighbours(unit, count):
    """Most similar other rows of each row."""
    found = []
    for i, row in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        found.append(sorted(others, key=lambda j: -float(unit[j] @ row))[:count])
    return found


def spread(outlook, given, config):
    """Labels and margins of the open examples."""
    known = [int(given[row]) for row in outlook.open]
    old = [int(outlook.prediction.labels[row]) for row in outlook.open]
    labels = list(old)
    weights = [1.0 if p > config.familiar else 0.0 for p in outlook.familiar]
    for i, label in enumerate(known):
        if label >= 0:
            for j in outlook.neighbours[i][: config.near]:
                labels[j], weights[j] = label, 1.0
    classes = sorted({*outlook.anchor_labels.tolist(), *labels, *(label for label in known if label >= 0)})
    z = outlook.activations.double().numpy()
    anchors = outlook.anchors.double().numpy()
    margins = [0.0] * len(labels)
    for _ in range(config.rounds):
        for i, label in enumerate(known):
            if label >= 0:
                labels[i], weights[i] = label, config.weight
        rows = [*anchors, *z]
        targets = [*outlook.anchor_labels.tolist(), *labels]
        votes = [*([1.0] * len(anchors)), *weights]
        mass = {c: max(sum(v for v, t in zip(votes, targets, strict=True) if t == c), 1e-9) for c in classes}
        votes = [v * mass[t] ** -config.balance for v, t in zip(votes, targets, strict=True)]
        used = [(r, v, t) for r, v, t in zip(rows, votes, targets, strict=True) if v > 0]
        mean = sum(v for _, v, _ in used) / len(used)
        gram = sum(v / mean * np.outer(r, r) for r, v, _ in used) + config.ridge * len(used) * np.eye(z.shape[1])
        side = np.stack([sum(v / mean * r * (t == c) for r, v, t in used) for c in classes], 1)
        scores = z @ np.linalg.solve(gram, side)
        for i in range(len(labels)):
            order = np.argsort(-scores[i])
            fresh = [k for k in range(len(classes)) if classes[k] not in outlook.known]
            familiar = max(scores[i][k] for k in range(len(classes)) if classes[k] in outlook.known)
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
