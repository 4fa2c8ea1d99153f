"""The protocol *unsupervised*: clusters of inputs without labels, and classes nobody has named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from protocols.harness.encoders import make_encoder
from protocols.harness.outcome import Column, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.unsupervised import peers
from protocols.runs.unsupervised.discovery import discovery_rows
from protocols.runs.unsupervised.metrics import agreement_figures
from protocols.runs.unsupervised.peers import Clustering
from slots.errors import UsageError
from slots.graph.config import GraphConfig
from slots.graph.learning import learn_graph, regroup
from slots.graph.slot_graph import SlotGraph
from slots.progress import Progress, part, silent
from slots.shapes import Ids

Features = npt.NDArray[np.float32]
ByNumber = Callable[[Features, int, int], Clustering]

FACTORS = (0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Numbers of clusters that peers may choose from, in multiples of the number of classes."""

_THRESHOLDS = (0.6, 0.8)
_CLUSTER_SIZES = (5, 15)
_MISSING = "not installed: pip install 'neural-slots[peers]'"

_COUNTED: dict[str, tuple[str, ByNumber, str]] = {
    "kmeans": ("k-means (scikit-learn)", peers.kmeans, ""),
    "faiss": ("k-means (FAISS)", peers.faiss_kmeans, ""),
    "spherical": (
        "k-means on unit rows (FAISS)",
        lambda x, k, seed: peers.faiss_kmeans(x, k, seed, spherical=True),
        "",
    ),
    "minibatch": ("mini-batch k-means (scikit-learn)", peers.minibatch_kmeans, ""),
}

_BEST = "Told the number of classes and shown the labels: each figure at that k of {ks} which is best for it."
_TRUE = "Told the number of classes."
_NOT_TOLD = "Not told the number of classes."

COLUMNS = (
    Column("nmi", "NMI", "score"),
    Column("acc", "accuracy (Hungarian)"),
    Column("ari", "ARI", "score"),
    Column("purity", "purity", better=None),
    Column("clusters", "clusters", "count", None),
    Column("test_nmi", "NMI, test", "score"),
    Column("test_acc", "accuracy, test"),
    Column("test_ari", "ARI, test", "score"),
    Column("matched", "matched", better=None),
    Column("test_matched", "matched, test", better=None),
    Column("acc_old", "accuracy, classes with labels"),
    Column("acc_new", "accuracy, new classes"),
    Column("seconds", "seconds", "seconds", "lower"),
)


@dataclass(frozen=True)
class Points:
    """What is clustered, and what is assigned afterwards; labels only to measure."""

    group: str
    x: Features
    y: Ids
    x_test: Features
    y_test: Ids
    seed: int

    @property
    def n_classes(self) -> int:
        """Classes among the points."""
        return len(np.unique(self.y))

    def row(self, method: str, found: Clustering, note: str = "") -> Row:
        """Figures of a clustering."""
        return Row(method, {**self.figures(found), "seconds": found.seconds}, group=self.group, note=note)

    def figures(self, found: Clustering) -> dict[str, float]:
        """Agreement on the points and on the test part."""
        figures = agreement_figures(self.y, found.labels)
        if len(self.x_test):
            test = agreement_figures(self.y_test, found.assign(self.x_test))
            figures |= {f"test_{key}": test[key] for key in ("acc", "nmi", "ari")}
        return figures


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Cluster, measure, discover; see `PROTOCOL`."""
    points, few = _points(setting, seed, progress)
    rows: list[Row] = [*_naive(points), *_ours(points, part(progress, 0.1, 0.3))]
    skipped: dict[str, str] = {}
    for place, name in enumerate(name for name in setting.peers if name in _COUNTED):
        progress(_COUNTED[name][0], 0.3 + 0.1 * place)
        try:
            rows += _counted(points, name)
        except ImportError:
            skipped[name] = _MISSING
    slow = [name for name in ("birch", "hdbscan") if name in setting.peers]
    if slow and few.group:
        rows += _ours(few, silent)
        rows += _counted(few, "kmeans") if "kmeans" in setting.peers else []
    for place, name in enumerate(slow):
        progress(name, 0.7 + 0.1 * place)
        rows += _birch(few) if name == "birch" else [_hdbscan(few)]
    facts = {"points": len(points.x), "points_of_slow_peers": len(few.x), "classes": points.n_classes}
    n_old = int(PROTOCOL.option(setting, "old_classes")) or points.n_classes // 2
    if 0 < n_old < points.n_classes:
        several = _some(points, int(PROTOCOL.option(setting, "discovery_examples")), "")
        progress("discovery", 0.9)
        rows += discovery_rows(several.x, several.y, n_old=n_old, seed=seed, wanted=setting.peers)
    return SeedOutcome(rows, facts=facts, skipped=skipped)


def _points(setting: Setting, seed: int, progress: Progress) -> tuple[Points, Points]:
    """All points and those for the slow peers."""
    data = setting.data
    for key, low in (("examples", 0), ("slow_examples", 50), ("old_classes", 0), ("discovery_examples", 50)):
        if (value := int(PROTOCOL.option(setting, key))) < low:
            raise UsageError(f"`{key}` must be >= {low}, got {value}. Leave it out for the default.")
    known, tested = np.flatnonzero(data.y_train >= 0), np.flatnonzero(data.y_test >= 0)
    if len(np.unique(data.y_train[known])) < 2:
        raise UsageError("`data` must have training examples of two classes to measure by, got fewer. Add labels.")
    encoder = make_encoder(setting, data.x_train[known], data.y_train[known], seed, progress)
    count = int(PROTOCOL.option(setting, "examples")) or len(known)
    chosen = known[np.sort(np.random.default_rng(seed).permutation(len(known))[:count])]
    progress("features", 0.05)
    x, x_test = encoder(data.x_train[chosen]), encoder(data.x_test[tested])
    points = Points("", x, data.y_train[chosen], x_test, data.y_test[tested], seed)
    slow = int(PROTOCOL.option(setting, "slow_examples"))
    return points, _some(points, slow, f"{slow:,} points" if slow < len(x) else "")


def _some(points: Points, count: int, group: str) -> Points:
    """A part of the points, drawn by the seed."""
    rows = np.sort(np.random.default_rng(points.seed + 1).permutation(len(points.x))[:count])
    return Points(group, points.x[rows], points.y[rows], points.x_test, points.y_test, points.seed)


def _naive(points: Points) -> list[Row]:
    """One cluster, and clusters by chance."""
    rng = np.random.default_rng(points.seed)
    k = points.n_classes
    one = Clustering(np.zeros(len(points.x), np.int64), lambda it: np.zeros(len(it), np.int64), 0.0)
    chance = Clustering(rng.integers(0, k, len(points.x)), lambda it: rng.integers(0, k, len(it)), 0.0)
    return [points.row("one cluster", one), points.row("random clusters", chance, _TRUE)]


def _ours(points: Points, progress: Progress) -> list[Row]:
    """The slot graph: alone, and told how many classes there are."""
    started = time.perf_counter()
    inputs = torch.from_numpy(points.x)
    graph = learn_graph(inputs, GraphConfig(seed=points.seed), progress=progress)
    rows = [_graph_row(points, graph, "slot graph", time.perf_counter() - started)]
    told = regroup(graph, inputs, points.n_classes, seed=points.seed)
    return [*rows, _graph_row(points, told, "slot graph, told the number", time.perf_counter() - started)]


def _graph_row(points: Points, graph: SlotGraph, method: str, seconds: float) -> Row:
    """Figures of a slot graph, with the share of inputs that some slot reaches."""
    placed, there = graph.placement, graph.place(torch.from_numpy(points.x_test))
    found = Clustering(placed.communities.numpy(), lambda _x: there.communities.numpy(), seconds)
    figures = {**points.figures(found), "matched": float(placed.matched.float().mean()), "seconds": seconds}
    if len(points.x_test):
        figures["test_matched"] = float(there.matched.float().mean())
    note = _TRUE if "told" in method else _NOT_TOLD
    return Row(method, figures, ours=True, group=points.group, note=note)


def _counted(points: Points, name: str) -> list[Row]:
    """A peer that is told k: at the true one, and at the best of several."""
    title, cluster, note = _COUNTED[name]
    counts = _counts(points.n_classes, len(points.x))
    found = {k: cluster(points.x, k, points.seed) for k in counts}
    return _best_and_true(points, title, found, note)


def _birch(points: Points) -> list[Row]:
    counts = _counts(points.n_classes, len(points.x))
    found: dict[int, list[Clustering]] = {k: [] for k in counts}
    for threshold in peers.birch_thresholds(points.x, points.seed, _THRESHOLDS):
        for k, clustering in zip(counts, peers.birch(points.x, counts, threshold), strict=True):
            found[k].append(clustering)
    best = {k: max(some, key=lambda it: points.figures(it)["nmi"]) for k, some in found.items()}
    return _best_and_true(points, "BIRCH (scikit-learn)", best, "At the better of two thresholds.")


def _hdbscan(points: Points) -> Row:
    found = [peers.hdbscan(points.x, size, seed=points.seed) for size in _CLUSTER_SIZES]
    best = max(found, key=lambda it: agreement_figures(points.y, it.labels)["nmi"])
    note = "Smallest cluster of 5 or 15 points, whichever is better by the labels; on 30 principal components."
    return points.row("HDBSCAN (scikit-learn)", best, note)


def _counts(n_classes: int, n_points: int) -> list[int]:
    return sorted({min(n_points, max(2, round(factor * n_classes))) for factor in FACTORS} | {n_classes})


def _best_and_true(points: Points, title: str, found: dict[int, Clustering], note: str) -> list[Row]:
    """Two rows: told k, and each figure at its best k."""
    figures = {k: points.figures(clustering) for k, clustering in found.items()}
    best: dict[str, float] = {key: max(it[key] for it in figures.values()) for key in figures[points.n_classes]}
    best["clusters"] = float(max(figures, key=lambda k: figures[k]["nmi"]))
    best["seconds"] = sum({it.seconds for it in found.values()})  # BIRCH's tree serves all numbers
    hint = _BEST.format(ks=_listed(list(found)))
    rows = [points.row(title, found[points.n_classes], f"{_TRUE} {note}".strip())]
    return [*rows, Row(f"{title}, best k", best, group=points.group, note=f"{hint} {note}".strip())]


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))


PROTOCOL = Protocol(
    name="unsupervised",
    title="Clustering and category discovery",
    about=(
        "The training part is clustered without its labels; new points, the test part, are assigned to the clusters. "
        "Accuracy pairs clusters and classes one to one so that most points are right; points of clusters that are "
        "left over are wrong. Purity grows with the number of clusters and is no measure alone. Matched is the share "
        "of inputs within the reach of a slot; the others are answered all the same. BIRCH and HDBSCAN see a part of "
        "the points, and so do the other rows of that group. In the rows named discovery some of the classes have "
        "labels for half of their examples and the others have none: accuracy is that of the unlabelled examples, "
        "clusters and classes paired over all of them. The slot graph and HDBSCAN find the number of clusters."
    ),
    columns=COLUMNS,
    headline="nmi",
    peers=(*_COUNTED, "birch", "hdbscan"),
    defaults={"examples": 0, "slow_examples": 10_000, "old_classes": 0, "discovery_examples": 20_000},
    run_seed=run_seed,
)
