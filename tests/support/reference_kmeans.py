"""The k-means of each part as it stood before `kmeans`, word for word: the answers must stay to the bit."""

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from slots.head.similarities import normalize

MEMBERS = 25
SAMPLE = 3000


def of_training(unit, k, seed):
    unit = unit[(unit != 0).any(1)]
    distinct = np.unique(unit, axis=0)
    if len(distinct) <= k:
        return distinct
    found = KMeans(k, n_init=1, max_iter=10, random_state=seed).fit(unit)
    centres = np.asarray(found.cluster_centers_, np.float32)
    return np.compress((centres != 0).any(1), centres, axis=0)


def of_novelty(unit, count, seed):
    rows = unit[(unit != 0).any(1)]
    if len(rows) == 0:
        return torch.eye(1, unit.shape[1])
    if len(rows) <= count:
        return rows
    found = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(rows.numpy())
    centres = torch.from_numpy(np.asarray(found.cluster_centers_, np.float32))
    return normalize(centres[(centres != 0).any(1)])


def of_standing(unit, most, seed):
    count = min(most, 1 + len(unit) // MEMBERS)
    rows = unit[:: max(1, -(-len(unit) // SAMPLE))].cpu().numpy()
    count = min(count, len(np.unique(rows, axis=0)))
    found = KMeans(count, n_init=1, max_iter=10, random_state=seed).fit(rows).cluster_centers_
    centres = normalize(torch.from_numpy(np.asarray(found, np.float32)).to(unit))
    return centres[(centres != 0).any(1)]


def of_flats(rows, count, seed):
    count = min(count, len(rows))
    found = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(rows.numpy())
    return torch.from_numpy(np.asarray(found.labels_, np.int64))


def of_clusterer(lifted, k, seed, starts):
    return KMeans(k, n_init=starts, random_state=seed).fit_predict(lifted)


def rows_by_size(ids):
    _, ids, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return np.asarray(np.argsort(np.argsort(-counts, kind="stable"))[ids], np.int64)


def slots_by_size(communities, sizes):
    return np.asarray(np.argsort(np.argsort(-np.bincount(communities, sizes), kind="stable"))[communities], np.int64)
