"""`SlotClassifier`: a scikit-learn classifier that can be given new classes at any time and forgets none."""
# ruff: noqa: N803, N806 - scikit-learn calls it X

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin

from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.estimators.base import Rows, SphereEstimator
from slots.estimators.choice import candidates, choose
from slots.estimators.model_scores import class_scores, fit_without_side_effects, nearest_angles, new_slot_radius
from slots.estimators.projection import GEOMETRIES, Geometry, Scaling, SphereProjection
from slots.head.prediction import Prediction
from slots.labels import check_rows_and_labels, check_same_kind
from slots.sources.reading import labelled
from slots.training.config import TrainConfig
from slots.training.defaults import MOST_SLOTS, AutoConfig, steps_of
from slots.update.config import UpdateConfig

Labels = npt.NDArray[Any]
_SCALE = 20.0  # of the softmax, where no look at the data decides
_FEW_CLASSES = 5  # the borders between fewer leave slots so wide that they swallow the classes that come later
_SMALL = 50_000  # numbers in a table; up to here long trainings take about a second, and gain up to a point
_RARE = 20  # a class with fewer examples cannot spare any for calibration


class SlotClassifier(ClassifierMixin, SphereEstimator):  # type: ignore[misc]
    """Classifier whose memory is slots, and which learns new classes without forgetting.

    Parameters
    ----------
    slots_per_class : int, optional
        Slots a class to start with; 0 grows them batch by batch. Default: what answers held-out rows best; with fewer
        than five classes, and where a first `partial_fit` begins a stream, half the square root of the mean class size,
        at most 30, since few wide slots would swallow the classes that come later.
    epochs : int, optional
        Passes over the training data, >= 0 (0 keeps k-means centres). Default: 40 for fewer than 50,000 numbers
        in the table, else 10.
    batch_size : int, optional
        Rows of a training step, >= 1. Default: a fiftieth of the examples where the table has fewer than 50,000
        numbers, else an eighth; at least 32 and at most 500.
    scale : float, optional
        Factor on the pooled cosine in the softmax, > 0. Default: what answers held-out rows best.
    whitening : "auto", None or float in (0, 1], default "auto"
        Shrinkage of the covariance within classes that lifted rows are whitened by (`slots.features.whitening`): 1
        only centres them, None leaves them. ``auto``: what answers held-out rows best.
    scaling : {"auto", "standard", "common", "none"}, default "auto"
        How features are centred and scaled before anything else (`slots.estimators.projection.SphereProjection`).
    geometry : {"auto", "lifted", "direction"}, default "auto"
        ``lifted`` keeps distances, as suits tables; ``direction`` compares rows by cosine alone, as suits embeddings.
        ``auto``: what answers held-out rows best.
    height : float, default 1.0
        How flat the lift is, > 0: at large values angles are distances, at small ones they are directions.
    precision : float in (0, 1], default 1.0
        Wanted precision of a slot on the training data; below 1 for noisy labels.
    closing : {"compact", "full"}, default "compact"
        ``full`` adds slots until every training example is matched.
    reach : float in (0, 1], default 0.8
        Share of the matches kept when slots are made smaller at the end of the fit, which leaves room for classes that
        come later; what is then unmatched is answered by the pooled score.
    vouch : float in (0, 1) or None, default 0.98
        Share of the answers by a matching slot that shall be right on new rows of the same kind. Rows that trained
        nothing decide how much smaller slots must be for it (`slots.closing.vouching`); where there are few, fewer
        rows are matched. None: slots are right on the training rows alone.
    memory : int, default 1000
        Training rows kept, an even share of each class, and shown again at each `partial_fit`, so that what no slot
        matches is not lost to new classes; >= 0. They take ``memory * (n_features_in_ + 1) * 4`` bytes.
    random_state : int, RandomState instance or None, default None
        Of the training, of updates and of the rows that are kept.

    Attributes
    ----------
    classes_ : array of shape (class,)
        Sorted. `partial_fit` may add to it; columns of the scores follow it.
    model_ : SlotModel
        The slots; label ids number the classes in order of appearance, for ever.
    lift_ : SphereProjection
        From rows to what the slots see; learned by the first fit and never changed.
    contradictions_ : int64 array
        Rows of the last `partial_fit` whose label speaks against a slot that matched. The slot stands.
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)
        Only where ``X`` has string column names.

    Notes
    -----
    What is left open is decided by a short look at the data: a few small fits on one part of the rows, judged by their
    accuracy on another (`slots.training.AutoConfig`). Where no two classes have two rows, there is nothing to look at.

    No forgetting: what a slot matched before a `partial_fit`, for whatever row, is answered in the same way after it
    (`slots.update`). What no slot matches is answered by the pooled score, which may change.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SlotClassifier(random_state=0).fit(X[y < 2], y[y < 2])
    >>> classifier.partial_fit(X[y == 2], y[y == 2]).classes_
    array([0, 1, 2])
    >>> bool(classifier.score(X, y) > 0.9)
    True
    """

    def __init__(
        self,
        *,
        slots_per_class: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        scale: float | None = None,
        whitening: float | Literal["auto"] | None = "auto",
        scaling: Scaling = "auto",
        geometry: Geometry | Literal["auto"] = "auto",
        height: float = 1.0,
        precision: float = 1.0,
        closing: Literal["compact", "full"] = "compact",
        reach: float = 0.8,
        vouch: float | None = 0.98,
        memory: int = 1000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.slots_per_class = slots_per_class
        self.epochs = epochs
        self.batch_size = batch_size
        self.scale = scale
        self.whitening = whitening
        self.scaling = scaling
        self.geometry = geometry
        self.height = height
        self.precision = precision
        self.closing = closing
        self.reach = reach
        self.vouch = vouch
        self.memory = memory
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike | None = None) -> Self:
        """Fit from the start; what was known before is dropped.

        Parameters
        ----------
        X : array-like of shape (example, feature), or data set
            Finite numbers, not sparse; or a data set of such rows (`slots.sources.read_source`).
        y : array-like of shape (example,)
            Class labels: strings, whole numbers, booleans, or floats that are whole. Left out: those of the data set.

        Returns
        -------
        SlotClassifier
            Itself.

        Raises
        ------
        ValueError
            If the data is empty or not finite, or the labels are continuous.
        TypeError
            If the data is sparse.
        """
        return self._begin(X, y, goes_on=False)

    def _begin(self, X: npt.ArrayLike, y: npt.ArrayLike | None, *, goes_on: bool) -> Self:
        """A fit; one that goes on with more classes has several slots a class, since wide ones would swallow them."""
        rows, labels = check_rows_and_labels(self, X, y, reset=True)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        self._ids = np.arange(len(self.classes_))
        ids = ids.astype(np.int64)
        if self.memory < 0:
            raise UsageError(f"`memory` must be >= 0, got {self.memory}. 0 keeps no rows for later updates.")
        self._seeds = self._drawn_seeds(2)
        auto = self._auto(ids, small=rows.size < _SMALL, goes_on=goes_on)
        self.lift_, config = choose(rows, ids, self._projections(rows), auto)
        lifted = self.lift_(rows)
        self.model_ = fit_without_side_effects(lifted, ids, config)
        self.contradictions_ = np.zeros(0, np.int64)
        self._remember(lifted, ids)
        return self

    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike | None = None, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Learn more, new classes included; what a slot answers stays as it is.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            The first call is a `fit`; its rows decide how all later ones are scaled, so they should be typical.
        y : array-like of shape (example,)
            Class labels of the same kind as before, of old or new classes.
        classes : array-like, optional
            Classes that have not come yet but should have a column already. Never needed.

        Returns
        -------
        SlotClassifier
            Itself.
        """
        wanted = None if classes is None else np.unique(np.asarray(classes))
        X, y = labelled(X, y)
        if not hasattr(self, "model_"):
            if wanted is not None:
                check_same_kind(wanted, np.asarray(y))
            self._begin(X, y, goes_on=True)
            if wanted is not None:
                self._register(wanted)
            return self
        rows, labels = check_rows_and_labels(self, X, y, reset=False)
        named = [labels] if wanted is None else [labels, wanted]
        for more in named:
            check_same_kind(self.classes_, more)
        for more in named:
            self._register(np.unique(more))
        ids = self._ids[np.searchsorted(self.classes_, labels)].astype(np.int64)
        lifted = np.concatenate([self.lift_(rows), self._memory[0]])
        ids = np.concatenate([ids, self._memory[1]])
        proposal = self.model_.propose(lifted, budget=0, radius=new_slot_radius(self.model_))
        report = self.model_.update(lifted, ids, proposal=proposal, config=UpdateConfig(seed=self._seeds[1]))
        against = np.array([c.example for c in report.contradictions], np.int64)
        self.contradictions_ = against[against < len(rows)]
        self._remember(lifted, ids)
        return self

    def predict(self, X: npt.ArrayLike) -> Labels:
        """Class of each row: that of the slot which matches, else the best by the pooled score.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        array of shape (example,)
        """
        return self._named(self.answer(X).labels)

    def answer(self, X: npt.ArrayLike) -> Prediction:
        """Full answers: slot, kind of answer, margin and runner-up of each row; labels are ids of ``model_``."""
        rows = self._lifted(X)
        return self.model_.predict(rows)

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Score of each class: a multiple of the pooled cosine, and never highest for another class than `predict`'s.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example, class), or (example,) for two classes
            With two, the second's lead over the first; with one, a single column.

        Notes
        -----
        Where a slot answers against the pooled score, its class changes places with the highest.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Softmax of the class scores.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example, class)
            Rows sum to one; the largest is `predict`'s class. Classes without any example yet have 0.
        """
        scores = self._scores(X)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        odds[:, ~np.isin(self._ids, self.model_.head.labels.cpu().numpy())] = 0.0
        return np.asarray(odds / odds.sum(1, keepdims=True))

    def score_samples(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """How familiar each row is: higher = more normal, as everywhere in scikit-learn.

        The opposite of `slots.novelty.detector`, where higher is more novel.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as in the fit.

        Returns
        -------
        float64 array of shape (example,)
            Minus the angle to the nearest slot's centre, radians, in [-pi, 0].
        """
        rows = self._lifted(X)
        return -nearest_angles(self.model_, rows)

    def _scores(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        rows = self._lifted(X)
        answers = self.model_.predict(rows).labels
        return class_scores(self.model_, rows, answers, n_labels=len(self._ids))[:, self._ids]

    def _named(self, ids: npt.NDArray[np.int64]) -> Labels:
        places = np.empty_like(self._ids)
        places[self._ids] = np.arange(len(self._ids))
        return np.asarray(self.classes_[places[ids]])

    def _remember(self, rows: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]) -> None:
        """Keep an even share of each class, drawn at random, for the updates to come."""
        order = np.random.default_rng(self._seeds[1]).permutation(len(ids))
        rank = np.empty(len(ids), np.int64)
        for label in np.unique(ids):
            mine = order[ids[order] == label]
            rank[mine] = np.arange(len(mine))
        kept = np.sort(np.lexsort((order, rank))[: self.memory])
        self._memory = rows[kept], ids[kept]

    def _register(self, classes: Labels) -> None:
        """Give classes that are not known yet the next ids, and keep the names sorted."""
        fresh = np.setdiff1d(classes, self.classes_)
        ids = np.concatenate([self._ids, len(self._ids) + np.arange(len(fresh))])
        names = np.concatenate([self.classes_, fresh])
        order = np.argsort(names, kind="stable")
        self.classes_, self._ids = names[order], ids[order]

    def _projections(self, rows: Rows) -> tuple[SphereProjection, ...]:
        """From rows to the sphere: what the parameters leave open."""
        if self.geometry != "auto" and self.geometry not in GEOMETRIES:
            raise UsageError(
                f"`geometry` must be one of auto, {', '.join(GEOMETRIES)}, got {self.geometry!r}. Try 'auto'."
            )
        geometry = None if self.geometry == "auto" else self.geometry
        return candidates(rows, scaling=self.scaling, geometry=geometry, height=self.height)

    def _auto(self, ids: npt.NDArray[np.int64], *, small: bool, goes_on: bool) -> AutoConfig:
        """The training: what the parameters say, and beside it what to do where no look at the data is possible."""
        counts = np.bincount(ids)
        n = len(ids)
        epochs, batch_size = (40, max(32, n // 50)) if small else steps_of(n)
        usual: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "slots_per_class": min(MOST_SLOTS, int(np.ceil(0.5 * np.sqrt(counts.mean())))),
            "scale": _SCALE,
            "whitening": None,
        }
        given = {name: getattr(self, name) for name in usual if getattr(self, name) is not None}
        if isinstance(self.whitening, str):
            if given.pop("whitening") != "auto":
                raise UsageError(f"`whitening` must be 'auto', None or a number, got {self.whitening!r}. Try 'auto'.")
        else:
            given["whitening"] = self.whitening
        if small:  # in the look too, or it would choose for another training
            given = {"epochs": epochs, "batch_size": batch_size, **given}
        if goes_on or len(counts) < _FEW_CLASSES:
            given.setdefault("slots_per_class", usual["slots_per_class"])
        base = TrainConfig(
            held_out=0.05 if counts.min() >= _RARE else 0.0,
            precision=self.precision,
            closing=ClosingConfig(mode=self.closing, reach=self.reach, vouch=self.vouch),
            seed=self._seeds[0],
            **{**usual, **given},
        )
        return AutoConfig(base, frozenset(given))
