"""Slow, literal second versions of what the continual learner and its peers compute."""

from __future__ import annotations

import numpy as np

from slots.continual.pca_slots import OPEN, PcaSlots


def energy_and_depth(slots: PcaSlots, slot: int, row: np.ndarray) -> tuple[float, float]:
    """Of one row and one slot, a direction at a time."""
    mean = np.float64(slots.codes[slot, 0].astype(np.float32) * slots.scales[slot, 0])
    free = slots.n_features - slots.variances.shape[1]
    noise = max(float(np.float32(slots.residual[slot] / max(1, free))), 1e-8)
    energy, depth = float(((row - mean) ** 2).sum()), 0.0
    for place, spread in enumerate(slots.variances[slot].tolist()):
        direction = np.float64(slots.codes[slot, 1 + place].astype(np.float32) * slots.scales[slot, 1 + place])
        step = float(direction @ (row - mean)) ** 2
        energy -= step
        energy += noise * step / (spread + noise)
        depth += step / (spread + noise)
    return max(energy, 1e-9), depth


def matching_slot(slots: PcaSlots, row: np.ndarray, lead: float) -> int:
    """The slot that answers a row, or -1, generation after generation."""
    measured = [energy_and_depth(slots, slot, row) for slot in range(len(slots))]
    for generation in sorted({int(it) for it in slots.generations if it != OPEN}):
        best, least = -1, np.inf
        for slot in range(len(slots)):
            if slots.generations[slot] != generation:
                continue
            energy, depth = measured[slot]
            inside = energy <= slots.limits[slot, 0] and depth <= slots.limits[slot, 1]
            leads = all(
                energy <= lead * measured[other][0]
                for other in range(len(slots))
                if OPEN < slots.generations[other] <= generation and slots.labels[other] != slots.labels[slot]
            )
            if inside and leads and energy < least:
                best, least = slot, energy
        if best >= 0:
            return best
    return -1


def streaming_lda(rows: np.ndarray, labels: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, covariance and discriminant weights of Hayes and Kanan (2020), one example after the other."""
    n_classes, n_features = int(labels.max()) + 1, rows.shape[1]
    means, counts = np.zeros((n_classes, n_features)), np.zeros(n_classes)
    covariance = np.zeros((n_features, n_features))
    for seen, (row, label) in enumerate(zip(rows.astype(np.float64), labels, strict=True)):
        away = row - means[label]
        delta = counts[label] * np.outer(away, away) / (counts[label] + 1)
        covariance = (seen * covariance + delta) / (seen + 1)
        means[label] = (counts[label] * means[label] + row) / (counts[label] + 1)
        counts[label] += 1
    inverse = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * np.eye(n_features))
    return means, covariance, inverse @ means.T
