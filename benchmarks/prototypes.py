"""Accuracy for the number of prototypes: what a user of scikit-learn would do with the same pixels.

Nearest class mean, k-means a class with the nearest prototype's label, k nearest neighbours on everything and logistic
regression; all on unit-length pixels, Euclidean. Usage::

    python benchmarks/prototypes.py --data mnist --out docs/results/prototypes-mnist.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from protocols.data.loading import load_data
from protocols.provenance import commit


def unit_rows(images):
    """Flatten and scale each image to unit length."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def kmeans_prototypes(x, y, per_class, seed):
    """Centres of k-means in each class, as a 1-nearest-neighbour classifier."""
    centres, labels = [], []
    for label in np.unique(y):
        rows = x[y == label]
        found = MiniBatchKMeans(per_class, n_init=1, batch_size=4096, random_state=seed).fit(rows)
        centres.append(found.cluster_centers_)
        labels.append(np.full(per_class, label))
    return KNeighborsClassifier(1, algorithm="brute").fit(np.concatenate(centres), np.concatenate(labels))


def main():
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = load_data(args.data, data_dir=args.data_dir)
    x, y, x_test, y_test = unit_rows(data.x_train), data.y_train, unit_rows(data.x_test), data.y_test
    n_classes = len(np.unique(y))
    methods = {
        ("nearest class mean", n_classes): lambda: NearestCentroid().fit(x, y),
        ("k-means a class, nearest prototype", 30 * n_classes): lambda: kmeans_prototypes(x, y, 30, args.seed),
        ("k-means a class, nearest prototype", 500 * n_classes): lambda: kmeans_prototypes(x, y, 500, args.seed),
        ("logistic regression", n_classes): lambda: LogisticRegression(max_iter=200).fit(x, y),
        ("3 nearest neighbours", len(x)): lambda: KNeighborsClassifier(3, algorithm="brute").fit(x, y),
    }
    rows = []
    for (name, prototypes), fit in methods.items():
        started = time.perf_counter()
        model = fit()
        fitted = time.perf_counter()
        accuracy = float((model.predict(x_test) == y_test).mean())
        rows.append(
            {
                "method": name,
                "prototypes": prototypes,
                "test_accuracy": accuracy,
                "fit_s": round(fitted - started, 2),
                "predict_s": round(time.perf_counter() - fitted, 2),
            }
        )
        print(f"{name:38} {prototypes:6}  {100 * accuracy:.2f} %", flush=True)
    document = {
        "data": data.name,
        "data_digest": data.digest,
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": args.seed,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scikit-learn": sklearn.__version__},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "commit": commit(),
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
