"""The estimators beside scikit-learn's own, on data that comes with scikit-learn.

    python benchmarks/estimators.py --output benchmarks/results/estimators.json
    python benchmarks/estimators.py --tables clustering --output benchmarks/results/estimators_clustering.json

Four tables: accuracy and slots in 5-fold cross-validation; accuracy at the end of a stream that brings the digits one
class after another; AUROC and false alarms of outlier detectors; agreement of clusters with the classes. A peer that
depends on scale is tried on the rows as they are and standardised, and the better of the two means stands in its row;
the estimators of slots get the rows as they are. Nothing is tuned; every method has its defaults.
"""

import argparse
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs, make_moons
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from protocols.provenance import commit, processor
from slots.estimators.classifier import SlotClassifier
from slots.estimators.clusterer import SlotClusterer
from slots.estimators.outlier_detector import SlotOutlierDetector


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="seeds: of the folds, splits and estimators")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", RuntimeWarning)  # overflow of logistic regression on rows as they are
    warnings.simplefilter("ignore", UserWarning)  # nearest centroid on pixels that never vary
    made_at = commit()  # now: others may commit while this runs
    seeds, rows = range(arguments.repeats), []
    for table in arguments.tables:
        for row in TABLES[table](seeds):
            rows.append(row)
            print(
                "  ".join(f"{value:.4f}" if isinstance(value, float) else f"{value}" for value in row.values()),
                flush=True,
            )
    result = {
        "schema": 1,
        "what": "estimators beside scikit-learn's, means over seeds",
        "seeds": list(seeds),
        "threads": 1,
        "command": " ".join(["python", "benchmarks/estimators.py", *sys.argv[1:]]),
        "commit": made_at,
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "rows": rows,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def data_sets():
    """Name, rows and classes."""
    return {
        "digits": load_digits(return_X_y=True),
        "iris": load_iris(return_X_y=True),
        "wine": load_wine(return_X_y=True),
        "breast_cancer": load_breast_cancer(return_X_y=True),
        "blobs": make_blobs(600, n_features=2, centers=6, cluster_std=1.5, random_state=0),
        "moons": make_moons(400, noise=0.2, random_state=0),
    }


def classifying(seeds):
    """Accuracy in 5-fold cross-validation, and how much is remembered."""
    peers = {
        "5 nearest neighbours": both(KNeighborsClassifier()),
        "nearest centroid": both(NearestCentroid()),
        "logistic regression": both(LogisticRegression(max_iter=2000)),
        "SlotClassifier": [SlotClassifier()],
        "SlotClassifier, closing='full'": [SlotClassifier(closing="full")],
    }
    for name, (x, y) in data_sets().items():
        for method, variants in peers.items():
            tried = [cross_validate(variant, x, y, seeds) for variant in variants]
            yield {"table": "classifying", "set": name, "method": method, **max(tried, key=lambda row: row["accuracy"])}


def cross_validate(estimator, x, y, seeds):
    """Means over folds and seeds; the deviation is over seeds."""
    accuracies, kept, matched, right, started = [], [], [], [], time.process_time()
    for seed in seeds:
        scores = []
        for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
            model = seeded(estimator, seed).fit(x[train], y[train])
            scores.append(model.score(x[test], y[test]))
            kept.append(remembered(model, len(train), len(np.unique(y))))
            if isinstance(model, SlotClassifier):
                inside = model.answer(x[test]).matched
                matched.append(inside.mean())
                right.append((model.predict(x[test]) == y[test])[inside].mean())
        accuracies.append(np.mean(scores))
    row = {"accuracy": float(np.mean(accuracies)), "deviation": float(np.std(accuracies)), "kept": float(np.mean(kept))}
    if matched:
        vouched = float(np.mean(right)) if np.isfinite(right).all() else None  # some folds may have no match
        row |= {"matched": float(np.mean(matched)), "right_when_matched": vouched}
    return row | {"seconds_a_fold": (time.process_time() - started) / (5 * len(seeds))}


def remembered(model, n_train, n_classes):
    """Vectors that the fitted model compares a row with."""
    last = model[-1] if hasattr(model, "steps") else model
    if isinstance(last, SlotClassifier):
        return last.model_.head.n_slots
    return n_train if isinstance(last, KNeighborsClassifier) else n_classes


def streaming(seeds):
    """Digits in a stream: class after class, two at a time, or shuffled; accuracy on test rows at its end."""
    x, y = load_digits(return_X_y=True)
    peers = {
        "naive Bayes": GaussianNB(),
        "linear, stochastic gradient": SGDClassifier(),
        "neural network, 100 units": MLPClassifier(),
        "SlotClassifier": SlotClassifier(),
        "SlotClassifier, memory=0": SlotClassifier(memory=0),
        "SlotClassifier, reach=1": SlotClassifier(reach=1.0),
    }
    for order in ("one class at a time", "two classes at a time", "eight classes, then two", "six shuffled parts"):
        for method, estimator in peers.items():
            found = [stream(seeded(estimator, seed), x / 16, y, order, seed) for seed in seeds]
            means = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
            yield {"table": "streaming", "set": order, "method": method, **means}


def stream(estimator, x, y, order, seed):
    """One pass; counts the test rows whose matched answer ever changed."""
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
    parts = {
        "one class at a time": [np.flatnonzero(y == label) for label in range(10)],
        "two classes at a time": [np.flatnonzero(y // 2 == pair) for pair in range(5)],
        "eight classes, then two": [np.flatnonzero(y < 8), np.flatnonzero(y >= 8)],
        "six shuffled parts": np.array_split(np.arange(len(y)), 6),
    }[order]
    changed, names, matched = 0, None, None
    for part in parts:
        estimator.partial_fit(x[part], y[part], classes=np.arange(10))
        if isinstance(estimator, SlotClassifier):
            after = estimator.predict(x_test)
            changed += 0 if names is None else int((after != names)[matched].sum())
            names, matched = after, estimator.answer(x_test).matched
    row = {"accuracy": estimator.score(x_test, y_test)}
    if isinstance(estimator, SlotClassifier):
        row |= {"kept": estimator.model_.head.n_slots, "changed_matched_answers": changed}
    return row


def detecting(seeds):
    """Fit on seven tenths of the normal rows; AUROC of the others against foreign rows, and false alarms."""
    peers = {
        "isolation forest": [IsolationForest()],
        "local outlier factor": both(LocalOutlierFactor(novelty=True)),
        "one-class SVM": both(OneClassSVM()),
        "SlotOutlierDetector": [SlotOutlierDetector()],
    }
    for name, (normal, foreign) in outlier_sets().items():
        for method, variants in peers.items():
            tried = [detect(variant, normal, foreign, seeds) for variant in variants]
            yield {"table": "detecting", "set": name, "method": method, **max(tried, key=lambda row: row["auroc"])}


def outlier_sets():
    """Normal and foreign rows."""
    digits, iris, wine, cancer = (data_sets()[name] for name in ("digits", "iris", "wine", "breast_cancer"))
    return {
        "digits 0-7 | 8, 9": (digits[0][digits[1] < 8], digits[0][digits[1] >= 8]),
        "digit 3 | others": (digits[0][digits[1] == 3], digits[0][digits[1] != 3]),
        "digit 8 | others": (digits[0][digits[1] == 8], digits[0][digits[1] != 8]),
        "benign | malignant": (cancer[0][cancer[1] == 1], cancer[0][cancer[1] == 0]),
        "wine 1 | others": (wine[0][wine[1] == 1], wine[0][wine[1] != 1]),
        "iris 1 | others": (iris[0][iris[1] == 1], iris[0][iris[1] != 1]),
    }


def detect(estimator, normal, foreign, seeds):
    """Means over random splits of the normal rows."""
    areas, alarms = [], []
    for seed in seeds:
        train, test = train_test_split(normal, test_size=0.3, random_state=seed)
        model = seeded(estimator, seed).fit(train)
        scores = np.concatenate([model.score_samples(test), model.score_samples(foreign)])
        areas.append(roc_auc_score(np.arange(len(scores)) < len(test), scores))
        alarms.append((model.predict(test) == -1).mean())
    return {"auroc": float(np.mean(areas)), "false_alarms": float(np.mean(alarms))}


def clustering(seeds):
    """Adjusted Rand index with the classes; the number of clusters given, and not given."""
    for name, (x, y) in data_sets().items():
        k = len(np.unique(y))
        peers = {
            "k-means, number given": both(KMeans(k, n_init=5)),
            "HDBSCAN": both(HDBSCAN(copy=True)),
            "SlotClusterer, number given": [SlotClusterer(k)],
            "SlotClusterer": [SlotClusterer()],
        }
        for method, variants in peers.items():
            tried = []
            for variant in variants:
                found = [seeded(variant, seed).fit_predict(x) for seed in seeds]
                agreement = float(np.mean([adjusted_rand_score(y, labels) for labels in found]))
                tried.append(
                    {"agreement": agreement, "clusters": float(np.mean([labels.max() + 1 for labels in found]))}
                )
            yield {"table": "clustering", "set": name, "method": method, **max(tried, key=lambda row: row["agreement"])}


def both(estimator):
    """On rows as they are, and standardised."""
    return [estimator, make_pipeline(StandardScaler(), estimator)]


def seeded(estimator, seed):
    """A fresh copy with the seed wherever it takes one."""
    copy = clone(estimator)
    names = [name for name in copy.get_params() if name.split("__")[-1] == "random_state"]
    return copy.set_params(**dict.fromkeys(names, seed))


TABLES = {"classifying": classifying, "streaming": streaming, "detecting": detecting, "clustering": clustering}


if __name__ == "__main__":
    main()
