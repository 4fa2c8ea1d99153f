"""Detectors of foreign inputs that others made: pytorch-ood, FAISS and scikit-learn, on features that are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocols.harness.encoders import Features, Labels

Scores = npt.NDArray[np.float64]

Score = Callable[[Features], Scores]
"""Feature rows to scores, higher = more novel."""

K_MEANS = "k-means, angle to the nearest (scikit-learn)"
"""Name of the row that is also a curve."""

_BLOCK = 1000  # rows scored at once: a product with 20,000 neighbours is 80 MB
_LOF_EXAMPLES = 5000  # its fit compares all with all


@dataclass(frozen=True)
class Familiar:
    """In-distribution training data that a detector may learn from.

    Parameters
    ----------
    features : float32 array of shape (example, feature)
        Training rows.
    labels : int64 array of shape (example,)
        From 0 to the number of classes - 1.
    linear : nn.Linear
        The classifier on these features.
    n_slots : int
        How many prototypes the methods compared with may keep.
    seed : int
        Of k-means and everything else that is drawn.
    """

    features: Features
    labels: Labels
    linear: nn.Linear
    n_slots: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class NoveltyPeer:
    """A fitted out-of-distribution detector, by its name in the table.

    Parameters
    ----------
    method : str
        As the table names it.
    score : callable
        Feature rows to scores, higher = more novel.
    remembered : int
        Vectors as long as a feature row that it keeps, matrices not counted.
    note : str
        One sentence that a reader needs to compare fairly; empty for none.
    """

    method: str
    score: Score
    remembered: int
    note: str = ""


def fit_novelty_peer(name: str, familiar: Familiar) -> list[NoveltyPeer]:
    """Fit what a short name stands for.

    Parameters
    ----------
    name : str
        A key of `NOVELTY_PEERS`.
    familiar : Familiar
        All that it may learn from.

    Returns
    -------
    list of NoveltyPeer
        More than one where the same work gives several rows.

    Raises
    ------
    ImportError
        If its library is not installed.
    """
    return NOVELTY_PEERS[name](familiar)


def unit(x: Features) -> Features:
    """Rows of unit length; zero rows stay."""
    found: Features = np.ascontiguousarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)
    return found


def k_means(features: Features, count: int, seed: int) -> Features:
    """Unit centres of the mini-batch k-means of unit features, at most as many as there are rows."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(count, len(features))
    found = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(unit(features))
    return unit(found.cluster_centers_)


def angle_to(centres: Features) -> Score:
    """Angle to the nearest of some unit vectors, radians."""

    def score(x: Features) -> Scores:
        angle: Scores = np.arccos(np.clip(unit(x) @ centres.T, -1, 1).max(1)).astype(np.float64)
        return angle

    return _blockwise(score)


def _blockwise(score: Callable[[Features], Any]) -> Score:
    """The same function, applied to a thousand rows at a time."""

    def whole(x: Features) -> Scores:
        parts = [np.asarray(score(x[i : i + _BLOCK]), np.float64) for i in range(0, max(1, len(x)), _BLOCK)]
        return np.concatenate(parts)

    return whole


def _on_logits(method: str, score: Callable[[torch.Tensor], torch.Tensor], familiar: Familiar) -> list[NoveltyPeer]:
    """A function of the logits."""
    linear = familiar.linear

    def of_features(x: Features) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = score(linear(torch.from_numpy(x))).numpy()
        return found

    return [NoveltyPeer(f"{method} (pytorch-ood)", _blockwise(of_features), linear.out_features)]


def _fitted(method: str, detector: Any, remembered: int, familiar: Familiar) -> list[NoveltyPeer]:
    """A detector that learns from features and labels."""
    detector.fit_features(torch.from_numpy(familiar.features), torch.from_numpy(familiar.labels))
    score = _blockwise(lambda x: detector.predict_features(torch.from_numpy(x)).numpy())
    return [NoveltyPeer(f"{method} (pytorch-ood)", score, remembered)]


def _max_softmax(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import MaxSoftmax

    return _on_logits("max softmax", MaxSoftmax(None).predict_logits, familiar)


def _energy(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import EnergyBased

    return _on_logits("energy", EnergyBased(None).predict_logits, familiar)


def _gen(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import GEN

    return _on_logits("GEN", GEN(None).predict_logits, familiar)


def _shaped(method: str, detector: Any, familiar: Familiar) -> list[NoveltyPeer]:
    """A detector that reshapes the maps before the last layer; a row counts as maps of one pixel."""
    score = _blockwise(lambda x: detector.predict_feature_maps(torch.from_numpy(x)[:, :, None, None]).numpy())
    note = "" if familiar.features.min() >= 0 else "Made for features >= 0, which these are not."
    return [NoveltyPeer(f"{method} (pytorch-ood)", score, familiar.linear.out_features, note)]


def _scale(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import SCALE

    return _shaped("SCALE", SCALE(lambda maps: maps, lambda maps: familiar.linear(maps.flatten(1))), familiar)


def _ash(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import ASH

    return _shaped("ASH", ASH(lambda maps: maps, lambda maps: familiar.linear(maps.flatten(1))), familiar)


def _mahalanobis(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import Mahalanobis

    return _fitted("Mahalanobis", Mahalanobis(None), familiar.linear.out_features, familiar)


def _relative(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import RMD

    return _fitted("relative Mahalanobis", RMD(None), 1 + familiar.linear.out_features, familiar)


def _vim(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import ViM

    linear = familiar.linear
    half = familiar.features.shape[1] // 2
    return _fitted("ViM", ViM(None, d=half, w=linear.weight, b=linear.bias), half, familiar)


def _gmm(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import GMM

    spread = float(familiar.features.var(0).mean())
    return _fitted("Gaussian a class", GMM(None, reg=1e-3 * spread), familiar.linear.out_features, familiar)


def _nn_guide(familiar: Familiar) -> list[NoveltyPeer]:
    from pytorch_ood.detector import NNGuide

    return _fitted("NNGuide", NNGuide(lambda x: x, familiar.linear), len(familiar.features), familiar)


def _neighbours(familiar: Familiar) -> list[NoveltyPeer]:
    """Sun et al. 2022: distance to the k-th nearest of the unit features; and 1-NN of the features as they are."""
    import faiss

    rows, n = familiar.features, len(familiar.features)
    on_sphere, plain = faiss.IndexFlatIP(rows.shape[1]), faiss.IndexFlatL2(rows.shape[1])
    on_sphere.add(unit(rows))
    plain.add(np.ascontiguousarray(rows))

    def sphere(k: int) -> Score:
        return _blockwise(lambda x: -on_sphere.search(unit(x), min(k, n))[0][:, -1])

    return [
        NoveltyPeer("1 nearest, unit features (FAISS)", sphere(1), n),
        NoveltyPeer("50 nearest, unit features (FAISS)", sphere(50), n),
        NoveltyPeer("1 nearest, raw features (FAISS)", _blockwise(lambda x: plain.search(x, 1)[0][:, 0]), n),
    ]


def _k_means(familiar: Familiar) -> list[NoveltyPeer]:
    centres = k_means(familiar.features, familiar.n_slots, familiar.seed)
    return [NoveltyPeer(K_MEANS, angle_to(centres), len(centres))]


def _forest(familiar: Familiar) -> list[NoveltyPeer]:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=familiar.seed).fit(familiar.features)
    return [NoveltyPeer("isolation forest (scikit-learn)", _blockwise(lambda x: -forest.score_samples(x)), 0)]


def _local_outlier_factor(familiar: Familiar) -> list[NoveltyPeer]:
    from sklearn.neighbors import LocalOutlierFactor

    rng = np.random.default_rng(familiar.seed)
    some = unit(familiar.features[rng.permutation(len(familiar.features))[:_LOF_EXAMPLES]])
    some = np.unique(some, axis=0)  # equal rows make the local density infinite
    lof = LocalOutlierFactor(n_neighbors=min(20, len(some) - 1), novelty=True).fit(some)
    note = "" if len(familiar.features) <= _LOF_EXAMPLES else f"Learns from {_LOF_EXAMPLES:,} of the examples."
    return [
        NoveltyPeer(
            "local outlier factor (scikit-learn)", _blockwise(lambda x: -lof.score_samples(unit(x))), len(some), note
        )
    ]


NOVELTY_PEERS: dict[str, Callable[[Familiar], list[NoveltyPeer]]] = {
    "max-softmax": _max_softmax,
    "energy": _energy,
    "gen": _gen,
    "ash": _ash,
    "scale": _scale,
    "mahalanobis": _mahalanobis,
    "relative-mahalanobis": _relative,
    "vim": _vim,
    "gaussians": _gmm,
    "nnguide": _nn_guide,
    "knn": _neighbours,
    "k-means": _k_means,
    "isolation-forest": _forest,
    "lof": _local_outlier_factor,
}
"""Short name to the function that fits it."""
