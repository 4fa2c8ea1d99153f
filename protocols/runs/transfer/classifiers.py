"""Question 1: who classifies best with no settings, and what is a matched answer worth? Peers are tuned inside."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protocols.harness.outcome import Row
from protocols.runs.slot_update.query_strategies import Prototypes
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.variants import Features, Task
from slots.estimators.classifier import SlotClassifier
from slots.head.prediction import Answer
from slots.shapes import Ids
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig
from slots.training.fitting import fit

GROUP = "accuracy"
WORTH = "what a matched answer is worth"
FIT, ESTIMATOR = "slots.fit", "SlotClassifier"
RIGHT, SHARE = "right when matched", "matched"

_TUNING = 600  # examples, or six of each class, that the inner cross-validation sees
_FOLDS = 3
_NEIGHBOURS = (1, 3, 5, 10, 20)
_PROTOTYPES = (1, 3, 10, 30)
_TUNED = "Tuned by cross-validation in three folds of its training part."


@dataclass(frozen=True)
class Found:
    """Answers to the test part.

    Parameters
    ----------
    labels : int64 array of shape (test example,)
        Class of each.
    size : float
        Vectors as long as a row that are kept: slots, examples, weights of classes.
    matched : bool array of shape (test example,), optional
        Which answers the method vouches for.
    """

    labels: Ids
    size: float
    matched: npt.NDArray[np.bool_] | None = None


Classifier = Callable[[Task, int], Found]


def level() -> float:
    """Share of matched answers that `slots.fit` promises to be right by its defaults."""
    return float(getattr(TrainConfig(), "vouch", 0.98))


def classifier_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """Accuracy, seconds of the processor and vectors of every method on one set; and what our matches are worth.

    Parameters
    ----------
    task : Task
        Training and test part.
    seed : int
        Of all that methods draw.
    peers : sequence of str
        Keys of `CLASSIFIERS`.

    Returns
    -------
    list of Row
        ``accuracy``, ``seconds``, ``size``; a method that fails has a row with the reason as its note.
    """
    methods = {FIT: _fit, ESTIMATOR: _estimator}
    rows = [_row(task, seed, name, method, ours=True) for name, method in methods.items()]
    rows += _worth(rows[0], task)
    for key in peers:
        if key in CLASSIFIERS:
            name, method, note = CLASSIFIERS[key]
            rows.append(_row(task, seed, name, method, note=note))
    return rows


def _row(task: Task, seed: int, name: str, method: Classifier, *, ours: bool = False, note: str = "") -> Row:
    def figures() -> dict[str, float | None]:
        started = time.process_time()
        found = method(task, seed)
        seconds = time.process_time() - started
        right = found.labels == task.y_test
        figures: dict[str, float | None] = {"accuracy": float(right.mean()), "seconds": seconds, "size": found.size}
        if found.matched is not None:
            figures |= {"n_matched": float(found.matched.sum()), "n_right": float((right & found.matched).sum())}
        return figures

    return attempt(figures, name, ours=ours, group=GROUP, task=task.name, note=note)


def _worth(row: Row, task: Task) -> list[Row]:
    """Share matched, and share of these that is right."""
    matched, right = (row.figures.get(key) or 0.0 for key in ("n_matched", "n_right"))
    return [
        Row(RIGHT, {"worth": right / matched if matched else None}, ours=True, group=WORTH, task=task.name),
        Row(SHARE, {"worth": matched / len(task.y_test)}, ours=True, group=WORTH, task=task.name),
    ]


def _fit(task: Task, seed: int) -> Found:
    """`slots.fit` as it comes; the seed is no setting."""
    model, _ = fit(task.x, task.y, config=AutoConfig(TrainConfig(seed=seed)))
    answers = model.predict(task.x_test)
    return Found(answers.labels, float(model.head.n_slots), answers.answers == Answer.MATCHED)


def _estimator(task: Task, seed: int) -> Found:
    model = SlotClassifier(random_state=seed).fit(task.x, task.y)
    answers = model.answer(task.x_test)
    return Found(model.predict(task.x_test), float(model.model_.head.n_slots), answers.answers == Answer.MATCHED)


def tuned(make: Callable[[Any], Any], values: Sequence[Any], x: Features, y: Ids, seed: int) -> Any:
    """The estimator with the value that is best in cross-validation, fitted on all rows.

    Parameters
    ----------
    make : callable
        From a value to an estimator that is not fitted.
    values : sequence
        Candidates; ties go to the first.
    x : float32 array of shape (example, feature)
        Training rows.
    y : int64 array of shape (example,)
        Their classes.
    seed : int
        Of the folds, and of the examples that tune where there are many.

    Returns
    -------
    estimator
        With the first value where a third of the examples would leave two classes nothing to learn from.
    """
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(y))[: max(_TUNING, 6 * len(np.unique(y)))]
    fold = rng.permutation(len(some)) % _FOLDS
    rights = dict.fromkeys(range(len(values)), 0.0)
    for held in range(_FOLDS):
        inner, outer = some[fold != held], some[fold == held]
        if len(np.unique(y[inner])) < 2 or not len(outer):
            continue
        for place, value in enumerate(values):
            rights[place] += float((fitted(make(value), x[inner], y[inner]).predict(x[outer]) == y[outer]).sum())
    best = max(rights, key=lambda place: (rights[place], -place))
    return fitted(make(values[best]), x, y)


def fitted(estimator: Any, x: Features, y: Ids) -> Any:
    """The estimator, fitted; that it has not converged, or a class has one example, is said in no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(x, y)


def _logistic(task: Task, seed: int) -> Found:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def make(value: tuple[bool, float]) -> Any:
        standardised, c = value
        return make_pipeline(StandardScaler(with_std=standardised), LogisticRegression(C=c, max_iter=100, tol=1e-3))

    return _linear(task, make, [(True, 0.01), (True, 0.1), (False, 0.1), (False, 1.0)], seed)


def _discriminant(task: Task, seed: int) -> Found:  # noqa: ARG001 - nothing is drawn
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    found = fitted(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), task.x, task.y)
    return Found(found.predict(task.x_test), task.n_classes + task.x.shape[1])


def _neighbours(task: Task, seed: int) -> Found:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    def make(value: tuple[bool, int]) -> Any:
        unit, k = value
        nearest = KNeighborsClassifier(k, weights="distance", algorithm="brute")
        return make_pipeline(Normalizer(), nearest) if unit else nearest

    smallest = max(1, len(task.y) // 2)
    values = [(unit, k) for unit in (True, False) for k in _NEIGHBOURS if k <= smallest]
    found = tuned(make, values, task.x, task.y, seed)
    return Found(found.predict(task.x_test), len(task.y))


def _svm(task: Task, seed: int) -> Found:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    def make(value: tuple[bool, float]) -> Any:
        standardised, c = value
        svm = LinearSVC(C=c, dual=True, max_iter=100, tol=1e-2, random_state=seed)
        return make_pipeline(StandardScaler(with_std=standardised), svm)

    return _linear(task, make, [(True, 1e-3), (True, 1e-2), (False, 1e-1)], seed)


def _linear(task: Task, make: Callable[[Any], Any], values: Sequence[tuple[bool, float]], seed: int) -> Found:
    """A linear model on standardised or centred rows, whose numbers are of size 1 in the mean either way."""
    size = float(task.x.std(0).mean()) or 1.0
    found = tuned(make, values, task.x / size, task.y, seed)
    return Found(found.predict(task.x_test / size), task.n_classes)


@dataclass
class _NearestPrototype:
    """k-means prototypes of unit rows, as an estimator.

    Parameters
    ----------
    per_class : int
        Prototypes of each class, or all of its examples where they are fewer.
    seed : int
        Of k-means.
    """

    per_class: int
    seed: int

    def fit(self, x: Features, y: Ids) -> _NearestPrototype:
        """Cluster each class."""
        count = self.per_class * len(np.unique(y))
        self.head = Prototypes(x, y, x[:1], self.seed, count=count)
        return self

    def predict(self, x: Features) -> Ids:
        """Class of the nearest."""
        none = np.zeros(0, np.int64)
        return self.head.answer(x, none, none)


def _prototypes(task: Task, seed: int) -> Found:
    found = tuned(lambda count: _NearestPrototype(count, seed), _PROTOTYPES, task.x, task.y, seed)
    return Found(found.predict(task.x_test), len(found.head.labels))


CLASSIFIERS: Final[Mapping[str, tuple[str, Classifier, str]]] = {
    "logistic": ("logistic regression", _logistic, f"Penalty, and rows standardised or not. {_TUNED}"),
    "lda": ("LDA, shrunk", _discriminant, "Ledoit-Wolf shrinkage (scikit-learn)."),
    "neighbours": ("k nearest neighbours", _neighbours, f"Number, and unit rows or not. {_TUNED}"),
    "svm": ("linear SVM", _svm, f"Penalty, and rows standardised or not. {_TUNED}"),
    "prototypes": ("k-means prototypes", _prototypes, f"Prototypes a class. {_TUNED}"),
}
"""Short name to the name in tables, the method, and what a reader needs to compare fairly."""
