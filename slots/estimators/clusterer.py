"""`SlotClusterer`: clusters that keep their numbers while new ones are found."""
# ruff: noqa: N803 - scikit-learn calls it X

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.metrics import silhouette_score
from sklearn.utils.validation import validate_data

from slots.arrays import on_host
from slots.closing.config import ClosingConfig
from slots.clustering.kmeans import by_size, owners
from slots.errors import UsageError
from slots.estimators.base import SphereEstimator, UnitRows
from slots.estimators.model_scores import fit_without_side_effects, label_angles, label_centroids, new_slot_radius
from slots.estimators.projection import Geometry, Scaling, SphereProjection, spread_differently
from slots.graph.config import GraphConfig
from slots.graph.learning import at_level, learn_graph, regroup
from slots.graph.slot_graph import SlotGraph
from slots.shapes import Ids
from slots.training.config import TrainConfig
from slots.update.config import UpdateConfig

_LOOKED_AT = 2000  # rows on which the number of clusters is chosen
_EACH = 10  # rows a cluster that is told
_ENOUGH = 100  # rows from which the communities of a graph are found; of fewer its 15 nearest are too many
_NEAR = 0.1  # share by which a level's number may differ from that of the clusters: small ones are dissolved
_UNEVEN = 2.0  # times the middle deviation, from which features on one scale and each on its own are both tried
_MOST_TRIED = 20  # clusters of k-means
_ONE = 1.1  # new rows that spread no further than this many times the usual radius are one cluster


class SlotClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, SphereEstimator):  # type: ignore[misc]
    """Clustering into slots: numbers are never changed, new clusters get new ones, and -1 is what no slot matches.

    Parameters
    ----------
    n_clusters : int or "auto", default "auto"
        Clusters that `fit` makes, >= 1; fewer where there are fewer different rows. ``auto`` finds the number: of a
        slot graph that for which most speaks (`slots.graph.levels`); of k-means that with the largest mean silhouette
        (Rousseeuw 1987) on up to 2,000 rows. That may be 1; and one cloud without clusters may be cut into many.
    merge : {"auto", "none", "graph"}, default "auto"
        ``none``: a cluster is one of k-means, round. ``graph``: a cluster is a community of many small slots with
        inputs between them (`slots.graph.learn_graph`), of any shape. ``auto``: a graph where there are 100 rows or
        more, and ten for each cluster that is told, unless the graph does not have that number.
    max_clusters : int, optional
        Largest number that ``auto`` may find in one `fit` or `partial_fit`, >= 2. Default: 20 for k-means, and no bound
        for a graph.
    slots_per_cluster : int, optional
        Slots a cluster, >= 1, so that it need not be round. Default: half the square root of the mean cluster size, at
        most 30.
    min_cluster_size : int, default 5
        Unmatched rows within one radius that make a new cluster in `partial_fit`, and rows that a community of a graph
        has at least, >= 1.
    scaling : {"auto", "standard", "common", "none"}, default "auto"
        How features are centred and scaled before anything else (`slots.estimators.projection.SphereProjection`). Where
        a graph is learned and features spread differently, ``auto`` tries both ways and takes the one whose clusters
        have more evidence.
    geometry : {"lifted", "direction"}, default "lifted"
        ``lifted`` keeps distances; ``direction`` compares rows by cosine alone, as suits features of a network.
    height : float, default 2.0
        How flat the lift is, > 0: at large values angles are distances, at small ones they are directions.
    random_state : int, RandomState instance or None, default None
        Of k-means, of the slot graph and of the rows that ``auto`` looks at.

    Attributes
    ----------
    labels_ : int64 array of shape (example,)
        Clusters of the rows of the last `fit` or `partial_fit`; -1 where no slot matches.
    n_clusters_ : int
        Clusters so far; they are numbered from 0, by size in `fit`, then by order of appearance.
    radius_ : float
        Radians from a cluster's middle within which nine in ten of its rows lie; the median of the clusters of `fit`.
    model_ : SlotModel
    lift_ : SphereProjection
    graph_ : SlotGraph
        Only where a graph was learned: the slots and bridges of `fit`; ``graph_.explain(number)`` says why some are one
        cluster, and ``graph_.levels`` offers coarser and finer clusters, each with its evidence.
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)
        Only where ``X`` has string column names.

    Notes
    -----
    `fit` is k-means or a slot graph on the lifted rows, which are unit vectors; each cluster then becomes slots as a
    class would. A graph is learned of the rows that differ. A row that a slot matched keeps its cluster through every
    later `partial_fit`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [9, 9], [9, 8], [8, 9.0]])
    >>> clusterer = SlotClusterer(n_clusters=2, min_cluster_size=2, random_state=0)
    >>> int(clusterer.fit_predict(X)[0] == clusterer.predict([[0.5, 0.5]])[0])
    1
    >>> clusterer.partial_fit([[-8, 9], [-9, 9], [-9, 8.0]]).labels_
    array([2, 2, 2])
    """

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = "auto",
        *,
        merge: Literal["auto", "none", "graph"] = "auto",
        max_clusters: int | None = None,
        slots_per_cluster: int | None = None,
        min_cluster_size: int = 5,
        scaling: Scaling = "auto",
        geometry: Geometry = "lifted",
        height: float = 2.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.merge = merge
        self.max_clusters = max_clusters
        self.slots_per_cluster = slots_per_cluster
        self.min_cluster_size = min_cluster_size
        self.scaling = scaling
        self.geometry = geometry
        self.height = height
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Cluster from the start; earlier clusters are dropped.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            Finite numbers, not sparse.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        SlotClusterer
            Itself.
        """
        rows = validate_data(self, on_host(X), dtype=np.float64)
        self._check_numbers()
        (self._seed,) = self._drawn_seeds(1)
        lifted, ids = self._found(rows)
        usual = min(30, int(np.ceil(0.5 * np.sqrt(len(ids) / (ids.max() + 1)))))
        config = TrainConfig(
            epochs=0,  # k-means has already drawn the borders that training would draw
            held_out=0.0,
            slots_per_class=usual if self.slots_per_cluster is None else self.slots_per_cluster,
            closing=ClosingConfig(mode="full"),
            seed=self._seed,
        )
        self.model_ = fit_without_side_effects(lifted, ids, config)
        self.radius_ = _usual_radius(lifted, ids)
        self.labels_ = self._answers(lifted)
        return self

    def partial_fit(self, X: npt.ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Find new clusters among the rows that no slot matches; the first call is a `fit`.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        SlotClusterer
            Itself; ``labels_`` are those of these rows.
        """
        if not hasattr(self, "model_"):
            return self.fit(X)
        lifted = self.lift_(self._known_rows(X))
        self._check_numbers()
        strange = self._strange(lifted)
        if len(strange):
            first = self.n_clusters_
            ids = first + self._grouped(lifted[strange])
            proposal = self.model_.propose(lifted[strange], budget=0, radius=new_slot_radius(self.model_))
            self.model_.update(lifted[strange], ids, proposal=proposal, config=UpdateConfig(seed=self._seed))
            self.model_.clusters |= set(range(first, self.n_clusters_))
        self.labels_ = self._answers(lifted)
        return self

    def predict(self, X: npt.ArrayLike) -> Ids:
        """Cluster of each row, -1 where no slot matches.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        int64 array of shape (example,)
        """
        return self._answers(self._lifted(X))

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Angle to each cluster: to the middle of its nearest slot, radians.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example, n_clusters_)
        """
        rows = self._lifted(X)
        return label_angles(self.model_, rows)

    @property
    def n_clusters_(self) -> int:
        """Clusters so far (count)."""
        return self.model_.n_labels

    @property
    def _n_features_out(self) -> int:
        return self.n_clusters_

    def _check_numbers(self) -> None:
        if self.n_clusters != "auto" and (not isinstance(self.n_clusters, Integral) or self.n_clusters < 1):
            raise UsageError(f"`n_clusters` must be 'auto' or >= 1, got {self.n_clusters!r}. Try 'auto'.")
        if self.merge not in ("auto", "none", "graph"):
            raise UsageError(f"`merge` must be 'auto', 'none' or 'graph', got {self.merge!r}. Choose one of them.")
        for name, value, low in (
            ("max_clusters", self.max_clusters, 2),
            ("min_cluster_size", self.min_cluster_size, 1),
        ):
            if value is not None and (not isinstance(value, Integral) or value < low):
                raise UsageError(f"`{name}` must be >= {low}, got {value}. Pass a larger whole number.")

    def _answers(self, lifted: UnitRows) -> Ids:
        answers = self.model_.predict(lifted)
        return np.where(answers.matched, answers.labels, -1)

    def _strange(self, lifted: UnitRows) -> Ids:
        """Rows of clusters to be: outside all slots, outside the radius of all clusters, and not alone."""
        found = self.model_.propose(lifted, radius=self.radius_, stop_below=self.min_cluster_size)
        outside = _angles(lifted, label_centroids(self.model_)) > self.radius_  # the others are the fringe of a cluster
        heads = found.queries[outside[found.queries]]
        near = _angles(lifted, lifted[heads].astype(np.float64)) <= self.radius_
        rows = found.unmatched[(outside & near)[found.unmatched]]
        return rows if len(rows) >= self.min_cluster_size else rows[:0]

    def _grouped(self, lifted: UnitRows) -> Ids:
        """Number of its group for each strange row: one group where they lie as close as a cluster does."""
        if _usual_radius(lifted, np.zeros(len(lifted), np.int64)) <= _ONE * self.radius_:
            return np.zeros(len(lifted), np.int64)
        rounded = self._numbered(lifted, self._best_number(lifted, len(np.unique(lifted, axis=0))))
        if self.merge == "none" or len(lifted) < _ENOUGH:
            return rounded
        # A graph finds any number, but no group of fewer rows than it links; k-means finds few groups of any size.
        shaped = by_size(self._graph(lifted, None).placement.communities.cpu().numpy())
        return max(rounded, shaped, key=lambda it: _silhouette(lifted, it))

    def _found(self, rows: npt.NDArray[np.float64]) -> tuple[UnitRows, Ids]:
        """The rows as the slots see them, and their clusters, the largest first."""
        told = None if self.n_clusters == "auto" else int(self.n_clusters)
        self.__dict__.pop("graph_", None)  # of an earlier fit
        lifted = self._learn_projection(rows)(rows)
        if self._by_graph(len(rows), told):
            lift, graph, place = self._better_graph(rows, told)
            if self.merge == "graph" or told in (None, graph.n_communities):
                ids = by_size(graph.placement.communities.cpu().numpy()[place])
                self.lift_, self.graph_ = lift, _renumbered(graph, ids, place)
                return lift(rows), ids
        n_different = len(np.unique(lifted, axis=0))
        k = self._best_number(lifted, n_different) if told is None else min(told, n_different)
        return lifted, self._numbered(lifted, k)

    def _by_graph(self, n_rows: int, told: int | None) -> bool:
        """Whether clusters of so many rows are communities of a graph."""
        enough = max(_ENOUGH, _EACH * (told or 0))
        return self.merge == "graph" or (self.merge == "auto" and told != 1 and n_rows >= enough)

    def _better_graph(
        self, rows: npt.NDArray[np.float64], told: int | None
    ) -> tuple[SphereProjection, SlotGraph, npt.NDArray[np.int64]]:
        """A graph of the rows that differ, and the place of each row among them.

        Where features spread differently, they are tried on one scale and each on its own. The number that is told
        decides, then the evidence.
        """
        _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as they came
        different, place = rows[first[order]], np.argsort(order)[place.ravel()]
        if len(different) < _ENOUGH:  # there is little else than twins
            different, place = rows, np.arange(len(rows))
        lifts = [self.lift_]
        if self.scaling == "auto" and np.ptp(self.lift_.scale) == 0 and spread_differently(rows, _UNEVEN):
            geometry = cast("Geometry", self.geometry)
            lifts.append(SphereProjection.of(rows, scaling="standard", geometry=geometry, height=self.height))
        found = [(lift, self._graph(lift(different), told)) for lift in lifts]
        lift, graph = max(found, key=lambda it: (told in (None, it[1].n_communities), _evidence(it[1])))
        return lift, graph, place

    def _graph(self, lifted: UnitRows, told: int | None) -> SlotGraph:
        """A slot graph of as many communities as were told, or of no more than may be found."""
        rows = torch.from_numpy(lifted)
        graph = learn_graph(rows, GraphConfig(n_communities=told, min_size=self.min_cluster_size, seed=self._seed))
        if told is not None or self.max_clusters is None or graph.n_communities <= self.max_clusters:
            return graph
        fewer = [i for i, it in enumerate(graph.levels) if it.n_communities <= self.max_clusters]
        if not fewer:
            return regroup(graph, rows, self.max_clusters, seed=self._seed)
        return at_level(graph, rows, max(fewer, key=lambda i: graph.levels[i].evidence))

    def _numbered(self, lifted: UnitRows, k: int) -> Ids:
        """k-means; the largest cluster is number 0."""
        return by_size(owners(lifted, k, seed=self._seed, starts=5))

    def _best_number(self, lifted: UnitRows, n_different: int) -> int:
        """Number of clusters with the largest mean silhouette."""
        rng = np.random.default_rng(self._seed)
        few = lifted if len(lifted) <= _LOOKED_AT else lifted[np.sort(rng.choice(len(lifted), _LOOKED_AT, False))]
        most = _MOST_TRIED if self.max_clusters is None else self.max_clusters
        tried = range(2, min(most, n_different - 1, len(few) - 1) + 1)
        scores = [silhouette_score(few, owners(few, k, seed=self._seed, starts=2)) for k in tried]
        return tried[int(np.argmax(scores))] if scores else 1


def _angles(lifted: UnitRows, middles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Angle of each row to the nearest of some directions, radians; pi where there are none."""
    return np.asarray(np.arccos(np.clip((lifted.astype(np.float64) @ middles.T).max(1, initial=-1.0), -1, 1)))


def _renumbered(graph: SlotGraph, ids: Ids, place: npt.NDArray[np.int64]) -> SlotGraph:
    """The same graph whose communities have the numbers of the clusters; those without a row come last."""
    former = graph.placement.communities
    numbers = torch.full((graph.n_communities,), -1, device=former.device)
    numbers[former[torch.from_numpy(place).to(former.device)]] = torch.from_numpy(ids).to(former.device)
    empty = numbers < 0
    numbers[empty] = torch.arange(graph.n_communities - int(empty.sum()), graph.n_communities, device=former.device)
    placement = replace(graph.placement, communities=numbers[former])
    return replace(graph, communities=numbers[graph.communities], placement=placement)


def _silhouette(lifted: UnitRows, groups: Ids) -> float:
    """Mean silhouette of groups; 0 where there is one group or each row is one."""
    few = np.linspace(0, len(lifted) - 1, min(_LOOKED_AT, len(lifted))).astype(np.int64)
    n_groups = len(np.unique(groups[few]))
    return float(silhouette_score(lifted[few], groups[few])) if 1 < n_groups < len(few) else 0.0


def _evidence(graph: SlotGraph) -> float:
    """What speaks for the number of clusters that a graph answers with; 0 where it is no level's."""
    n = graph.n_communities
    return max((it.evidence for it in graph.levels if abs(it.n_communities - n) <= _NEAR * n), default=0.0)


def _usual_radius(lifted: UnitRows, ids: Ids) -> float:
    """Median over clusters of the angle that holds nine in ten of a cluster's rows around its mean."""
    reach = []
    for label in np.unique(ids):
        rows = lifted[ids == label].astype(np.float64)
        mean = rows.sum(0)
        angles = np.arccos(np.clip(rows @ (mean / max(float(np.linalg.norm(mean)), 1e-12)), -1, 1))
        reach.append(float(np.quantile(angles, 0.9)))
    return float(np.median(reach))
