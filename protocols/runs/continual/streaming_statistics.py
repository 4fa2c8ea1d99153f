"""Continual learners that keep sums: nearest class mean, streaming LDA, random projection with ridge regression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slots.shapes import Ids

Rows = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]


class NearestMean:
    """Class whose mean is nearest (Rebuffi et al., 2017, without the network).

    Parameters
    ----------
    n_features : int
        Length of a row.
    """

    def __init__(self, n_features: int) -> None:
        self.sums, self.counts = np.zeros((0, n_features)), np.zeros(0)

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Add examples to the sums of their classes."""
        for label in np.unique(labels).tolist():
            mine = rows[labels == label]
            self._grow(label + 1)
            self.sums[label] += mine.sum(0, dtype=np.float64)
            self.counts[label] += len(mine)

    def predict(self, rows: Rows) -> Ids:
        """Nearest mean among the classes that have come."""
        known = np.flatnonzero(self.counts)
        means = self.sums[known] / self.counts[known, None]
        return np.asarray(known[((means**2).sum(1) - 2 * rows @ means.T).argmin(1)], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the means, as single precision would hold them, and of the counts."""
        return self.sums.nbytes // 2 + self.counts.nbytes

    def _grow(self, count: int) -> None:
        more = max(0, count - len(self.counts))
        self.sums = np.concatenate([self.sums, np.zeros((more, self.sums.shape[1]))])
        self.counts = np.concatenate([self.counts, np.zeros(more)])


class StreamingLDA:
    """Linear discriminant analysis with running means and one running covariance.

    Parameters
    ----------
    n_features : int
        Length of a row.
    shrinkage : float, default 1e-4
        In [0, 1], towards the identity.

    Notes
    -----
    Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis", 2020, equations 2
    to 4: the covariance takes each example about the mean of its class before the example came.
    """

    def __init__(self, n_features: int, *, shrinkage: float = 1e-4) -> None:
        self.shrinkage = shrinkage
        self.means, self.counts = np.zeros((0, n_features)), np.zeros(0)
        self.covariance: npt.NDArray[np.float32] = np.zeros((n_features, n_features), np.float32)
        self.seen = 0

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Take examples one after the other; the result does not depend on how they are grouped."""
        more = max(0, int(labels.max()) + 1 - len(self.counts))
        self.means = np.concatenate([self.means, np.zeros((more, self.means.shape[1]))])
        self.counts = np.concatenate([self.counts, np.zeros(more)])
        steps = np.empty(rows.shape)
        for label in np.unique(labels).tolist():
            mine = labels == label
            old = self.counts[label]
            before = old + np.arange(int(mine.sum()))
            sums = np.cumsum(rows[mine], 0, dtype=np.float64) + self.means[label] * old
            earlier = np.concatenate([(self.means[label] * old)[None], sums[:-1]]) / np.maximum(before, 1)[:, None]
            # delta n / (n + 1) of the paper, as a square root on both factors; a first example moves only the mean
            steps[mine] = (rows[mine] - earlier) * np.sqrt(before / (before + 1))[:, None]
            self.counts[label] += len(before)
            self.means[label] = sums[-1] / self.counts[label]
        total = self.seen + len(rows)
        added = steps.astype(np.float32)
        self.covariance *= np.float32(self.seen / total)
        self.covariance += added.T @ added / np.float32(total)
        self.seen = total

    def predict(self, rows: Rows) -> Ids:
        """Class of the largest discriminant."""
        known = np.flatnonzero(self.counts)
        means = self.means[known]
        size = len(self.covariance)
        shrunk = (1 - self.shrinkage) * self.covariance.astype(np.float64) + self.shrinkage * np.eye(size)
        weights = np.linalg.solve(shrunk, means.T)
        return np.asarray(known[(rows @ weights - 0.5 * (means.T * weights).sum(0)).argmax(1)], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of covariance and means in single precision, and of the counts."""
        return self.covariance.nbytes + self.means.nbytes // 2 + self.counts.nbytes


class RandomRidge:
    """Ridge regression of the classes on random rectified projections.

    Parameters
    ----------
    n_features : int
        Length of a row.
    n_projections : int
        Rectified random features that the regression sees (count, >= 1).
    seed : int
        Of the projections.
    ridge : float, default 1.0
        > 0. Pixels of 60,000 digits and clothes were answered alike from 0.006 to 6.

    Notes
    -----
    McDonnell et al., "RanPAC: random projections and pre-trained models for continual learning", 2023, phase 2: the
    Gram matrix of the projected rows and their sum for each class are added up, and solved when asked.
    """

    def __init__(self, n_features: int, n_projections: int, *, seed: int, ridge: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.ridge = ridge
        self.projection = rng.standard_normal((n_features, n_projections), dtype=np.float32)
        self.gram = np.zeros((n_projections, n_projections), np.float32)
        self.sums = np.zeros((0, n_projections), np.float32)

    def learn(self, rows: Rows, labels: Ids) -> None:
        """Add examples to the sums."""
        more = max(0, int(labels.max()) + 1 - len(self.sums))
        self.sums = np.concatenate([self.sums, np.zeros((more, len(self.gram)), np.float32)])
        found = self._project(rows)
        self.gram += found.T @ found
        for label in np.unique(labels).tolist():
            self.sums[label] += found[labels == label].sum(0)

    def predict(self, rows: Rows) -> Ids:
        """Class of the largest regression, among those that have come."""
        known = np.flatnonzero(self.sums.any(1))
        gram = self.gram + self.ridge * np.eye(len(self.gram), dtype=np.float32)
        weights = np.linalg.solve(gram, self.sums[known].T)
        return np.asarray(known[(self._project(rows) @ weights).argmax(1)], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of Gram matrix, sums and projection."""
        return self.gram.nbytes + self.sums.nbytes + self.projection.nbytes

    def _project(self, rows: Rows) -> Rows:
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        found: Rows = np.maximum((rows / np.maximum(length, 1e-12)) @ self.projection, 0)
        return found
