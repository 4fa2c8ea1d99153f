"""`ContinualSlots`: a classifier for endless streams, in one pass and bounded memory, which keeps its word."""
# ruff: noqa: N803 - scikit-learn calls it X

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.random import default_rng
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from slots.arrays import on_host
from slots.continual.buffer import PendingBuffer
from slots.continual.decision import Decision, Labels
from slots.continual.earlier import complete
from slots.continual.evidence import ClassEvidence, Experts, watch
from slots.continual.growth import Growth, learn, seal, unexplained
from slots.continual.parameters import check_parameters
from slots.continual.pca_slots import PcaSlots
from slots.continual.sealed_match import match
from slots.continual.space import FIRST, Space
from slots.labels import check_rows_and_labels, check_same_kind
from slots.shapes import Ids


class ContinualSlots(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier that learns from a stream in one pass; classes may come, go and return at any time.

    Parameters
    ----------
    n_directions : int, default 12
        Directions a slot remembers beside its mean, >= 1; at most two thirds as many as there are features are kept.
    first_slots, first_share : int, default 20 and 25
        A new class gets a slot for every ``first_share`` examples until it has ``first_slots``, both >= 1.
    slot_share : int, default 300
        Later it gets one for every ``slot_share`` examples that its sealed slots do not explain, >= 1.
    pending : int, default 1500
        Examples of all classes together that wait to be learned, >= 1. When there are so many beside those held out,
        those of the most frequent class among them are learned at once and leave.
    held_out : int, default 750
        Examples of all classes together that wait longer, >= 0, no more than half of ``pending``: up to a fifth of each
        class, drawn at random. An answer is given by what was learned from the others, weighed by how well it
        foretells these, and by these themselves.
    probation : int, default 24000
        Examples of other classes after which a slot is sealed, >= 0.
    reach : float, default -0.5
        How far a sealed slot matches: so many standard deviations beyond its own typical example, on the scale of log
        energies. Never as far as an example of another class has come during the probation.
    lead : float in (0, 1), default 0.6
        A slot matches only where its energy is at most this share of that of any older slot of another class.
    random_state : int, RandomState instance or None, default None
        Of where new slots start.

    Attributes
    ----------
    classes_ : array of shape (class,)
        Sorted; label ids number the classes in order of appearance.
    slots_ : PcaSlots
        What was learned from all but the pending examples.
    evidence_ : ClassEvidence
        Class means, and what slots and covariances weigh.
    n_features_in_ : int
    nbytes : int
        Bytes of all that is kept between calls, pending examples included.

    Notes
    -----
    Rows are compared by direction: each is scaled to unit length. Rows of fewer than 64 features first get a constant
    beside them, and columns with units of their own are divided by their spread, as the first 256 rows of the stream
    say (`slots.continual.space.Space`). A slot is a small probabilistic PCA of examples of
    one class, kept in 8-bit numbers; it learns from examples of its own class alone, so what is known of one class is
    never overwritten by another. A row that no slot matches goes to the class with the most evidence
    (`slots.continual.evidence`), which may change with every example.

    *Matched* answers never change. A slot learns, and promises nothing, until it has seen ``probation`` examples of
    other classes; what they show about its reach is taken off. Then it is sealed: neither moved nor removed, and older
    slots answer before younger ones (`slots.continual.sealed_match.match`). This holds for every possible row.

    The state does not depend on how the stream is cut into calls.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> learner = ContinualSlots(pending=50, probation=300, random_state=0)
    >>> for label in range(10):  # one class after the other
    ...     _ = learner.partial_fit(X[y == label], y[y == label])
    >>> bool(learner.score(X, y) > 0.95)
    True
    """

    _experts: Experts | None = None  # kept by `settle` alone
    _space: Space | None  # none before enough rows have come
    _first: tuple[npt.NDArray[np.float64], Ids]  # until then

    def __init__(
        self,
        *,
        n_directions: int = 12,
        first_slots: int = 20,
        first_share: int = 25,
        slot_share: int = 300,
        pending: int = 1500,
        held_out: int = 750,
        probation: int = 24_000,
        reach: float = -0.5,
        lead: float = 0.6,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_directions = n_directions
        self.first_slots = first_slots
        self.first_share = first_share
        self.slot_share = slot_share
        self.pending = pending
        self.held_out = held_out
        self.probation = probation
        self.reach = reach
        self.lead = lead
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike | None = None) -> Self:
        """Forget everything and learn these rows in the order in which they stand.

        Parameters
        ----------
        X, y : array-like of shapes (example, feature) and (example,)
            As those of `partial_fit`.

        Returns
        -------
        ContinualSlots
        """
        if hasattr(self, "slots_"):
            del self.slots_
        return self.partial_fit(X, y)

    def partial_fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike | None = None,
        classes: npt.ArrayLike | None = None,  # noqa: ARG002 - scikit-learn passes it
    ) -> Self:
        """Learn the next rows of the stream; their classes may be old or new.

        Parameters
        ----------
        X : array-like of shape (example, feature), or data set
            Finite numbers, not sparse; of 64 features or more, only their direction counts. A data set
            (`slots.sources.read_source`) is read whole: pass the batches of a `DataLoader` one by one if it is large.
        y : array-like of shape (example,)
            Class labels: strings, whole numbers, booleans, or floats that are whole. Left out: those of the data set.
        classes : ignored
            Classes need not be announced.

        Returns
        -------
        ContinualSlots

        Raises
        ------
        UsageError
            If a parameter is out of its range.
        DataError
            If numbers are given as labels after names, or the other way round.
        ValueError
            If the data is empty or not finite, or the labels are continuous.
        """
        fresh = not hasattr(self, "slots_")
        if fresh:
            check_parameters(self)
        rows, labels = check_rows_and_labels(self, X, y, reset=fresh)
        if fresh:
            self._start(labels)
        self._experts = None
        ids = self._register(labels)
        if self._space is not None:
            self._take(rows, ids)
            return self
        rows, ids = np.concatenate([self._first[0], rows]), np.concatenate([self._first[1], ids])
        self._first = rows[:FIRST].copy(), ids[:FIRST].copy()
        if len(ids) >= FIRST:
            self._fix_space()
            self._take(rows[FIRST:], ids[FIRST:])
        return self

    def _fix_space(self) -> None:
        """From now on rows are compared as the first ones ask for; take those."""
        rows, ids = self._first
        self._space, self._first = Space.of(rows, ids), (rows[:0].copy(), ids[:0].copy())
        self._take(rows, ids)

    def _take(self, rows: npt.NDArray[np.float64], ids: Ids) -> None:
        """Let rows wait, and learn whenever too many do."""
        units, done = (self._space or Space()).units(rows).astype(np.float32), 0
        room = self.pending + min(self.held_out, self.pending // 2)
        while done < len(ids):
            end = min(len(ids), done + room - len(self._waiting))
            self._waiting.add(units[done:end], ids[done:end], self._draws.random(end - done))
            done = end
            if len(self._waiting) >= room:
                ready = ~self._held_out()
                self._learn(self._waiting.most_frequent_label(ready), ready)
                self._seal()

    def settle(self) -> Self:
        """Learn what is pending now and keep what answers need, so that they are fast until the stream goes on.

        Returns
        -------
        ContinualSlots
        """
        check_is_fitted(self, "slots_")
        if self._space is None:
            self._fix_space()
        self._learn_waiting()
        self._seal()
        self._experts = self._make_experts()
        return self

    def decide(self, X: npt.ArrayLike) -> Decision:
        """Answer each row, and tell which answers are final.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as were learned.

        Returns
        -------
        Decision
        """
        if self._is_early:
            return self._settled().decide(X)
        rows = self._rows(X)
        found = match(self.slots_, rows, lead=self.lead)
        matched = found >= 0
        ids = self.slots_.labels[found] if len(self.slots_) else np.zeros(len(rows), np.int64)
        if not matched.all():
            ids[~matched] = self._settled().evidence_total(rows[~matched]).argmax(1)
        return Decision(self._names[ids], matched, found)

    def predict(self, X: npt.ArrayLike) -> Labels:
        """Class of each row: that of the slot which matches, else the class with the most evidence.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as were learned.

        Returns
        -------
        array of shape (example,)
        """
        return self.decide(X).labels

    def evidence(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Evidence for each class, as it decides where no slot matches; higher = more likely.

        Parameters
        ----------
        X : array-like of shape (example, feature)
            As many features as were learned.

        Returns
        -------
        float64 array of shape (example, class)
            Columns follow ``classes_``; differences between them are in nats.
        """
        if self._is_early:
            return self._settled().evidence(X)
        rows = self._rows(X)
        return self._settled().evidence_total(rows)[:, np.argsort(self._names, kind="stable")]

    @property
    def classes_(self) -> Labels:
        """Known classes, sorted."""
        check_is_fitted(self, "slots_")
        return np.sort(self._names)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept between calls."""
        check_is_fitted(self, "slots_")
        counters = self._learned.nbytes + self._open.nbytes + self._names.nbytes
        counters += self._experts.nbytes if self._experts else 0
        first = sum(it.nbytes for it in self._first) + (self._space.nbytes if self._space else 0)
        return self.slots_.nbytes + self.evidence_.nbytes + self._waiting.nbytes + first + counters

    def evidence_total(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Evidence by label id for unit rows, the pending examples left aside."""
        return self.evidence_.total(self._experts or self._make_experts(), rows)

    def _make_experts(self) -> Experts | None:
        return Experts.from_slots(self.slots_, self.evidence_.means) if len(self.slots_) else None

    def _start(self, labels: Labels) -> None:
        n_features = Space.width(self.n_features_in_)
        self._space, self._first = None, (np.zeros((0, self.n_features_in_)), np.zeros(0, np.int64))
        n_directions = min(
            self.n_directions, max(1, 2 * self.n_features_in_ // 3)
        )  # the rest tells how far a row lies off
        self.slots_ = PcaSlots.empty(0, n_directions, n_features)
        self.evidence_ = ClassEvidence.empty(n_features)
        self._waiting = PendingBuffer.empty(n_features)
        self._names: Labels = labels[:0]
        self._learned, self._open = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._flushes = 0
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._draws = default_rng(self._seed)

    def _register(self, labels: Labels) -> Ids:
        """Label ids, new ones in order of appearance."""
        if len(self._names):
            check_same_kind(self._names, labels)
        known, first = np.unique(labels, return_index=True)
        fresh = [name for name in known[np.argsort(first)] if name not in self._names]
        if fresh:
            self._names = np.concatenate([self._names, np.array(fresh)])
            zeros = np.zeros(len(fresh), np.int64)
            self._learned, self._open = np.concatenate([self._learned, zeros]), np.concatenate([self._open, zeros])
            self.evidence_.add_labels(len(fresh))
        order = np.argsort(self._names, kind="stable")
        return np.asarray(order[np.searchsorted(self._names[order], labels)], np.int64)

    def _held_out(self) -> npt.NDArray[np.bool_]:
        """Which of the waiting examples are held out, of shape (example,)."""
        return self._waiting.held_out(self._learned, min(self.held_out, self.pending // 2))

    def _learn(self, label: int, ready: npt.NDArray[np.bool_]) -> None:
        """Learn those of the waiting examples that are ready and have a label, at least one."""
        rows = self._waiting.pop(ready & (self._waiting.ids == label))
        if len(self.slots_):
            watch(self.slots_, label, rows)
        self.evidence_.learn(label, rows, int(self._learned[label]))
        others = int(self._learned.sum() - self._learned[label])
        self._learned[label] += len(rows)
        self._flushes += 1
        rows = rows[unexplained(self.slots_, label, rows)]
        if len(rows):
            self._open[label] += len(rows)
            wanted = self._growth.wanted(int(self._open[label]))
            learn(self.slots_, label, rows, wanted=wanted, others=others, rng=default_rng([self._seed, self._flushes]))

    def _learn_waiting(self) -> None:
        """Learn all that waits: what is not held out, then what each kind of evidence weighs, then the rest."""
        held = self._held_out()
        last, self._waiting = self._waiting.copy(), self._waiting.copy()
        last.pop(~held)
        self._waiting.pop(held)
        self._learn_all()
        self.evidence_.weigh(self.slots_, last.rows(), last.ids.astype(np.int64))
        self._waiting = last
        self._learn_all()

    def _learn_all(self) -> None:
        for label in np.unique(self._waiting.ids):
            self._learn(label, np.ones(len(self._waiting), np.bool_))

    def _seal(self) -> None:
        others = self._learned.sum() - self._learned[self.slots_.labels]
        seal(self.slots_, self._growth, others, self._flushes)

    @property
    def _growth(self) -> Growth:
        return Growth(self.first_slots, self.first_share, self.slot_share, self.probation, self.reach)

    def _settled(self) -> ContinualSlots:
        """A learner like this with nothing pending; itself stays as it is, and sealed slots are the same."""
        if self._space is not None and len(self._waiting) == 0:
            return self
        other = ContinualSlots(**self.get_params())
        other.__dict__ |= self.__dict__
        other.slots_, other.evidence_ = self.slots_.copy(), self.evidence_.copy()
        other._learned, other._open = self._learned.copy(), self._open.copy()
        other._waiting, other._draws = self._waiting.copy(), deepcopy(self._draws)
        if other._space is None:
            other._fix_space()
        other._learn_waiting()
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what pickle kept; earlier versions took rows as they are, or held nothing out."""
        super().__setstate__(state)
        complete(self, state)

    def _rows(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        check_is_fitted(self, "slots_")
        return (self._space or Space()).units(validate_data(self, on_host(X), dtype=np.float64, reset=False))

    @property
    def _is_early(self) -> bool:
        """Whether fewer rows have come than decide how rows are compared."""
        check_is_fitted(self, "slots_")
        return self._space is None
