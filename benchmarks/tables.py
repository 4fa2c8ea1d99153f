"""Tables as they are: columns of any units, few or many, by default settings, beside what one would pick.

    python benchmarks/tables.py --seeds 3

Small tables and shapes that come with scikit-learn, half of the rows held out, stratified. ``slots.fit`` gets the table
as it is, ``ContinualSlots`` too, class after class in ten parts. Logistic regression (``C`` by cross-validation) and 5
nearest neighbours (scikit-learn) get columns centred and divided by their deviation over the training rows. Seconds are
of processor time.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_blobs, make_circles, make_moons
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import slots

TABLES = {
    "iris": load_iris(return_X_y=True),
    "wine": load_wine(return_X_y=True),
    "breast cancer": load_breast_cancer(return_X_y=True),
    "moons": make_moons(1000, noise=0.2, random_state=0),
    "circles": make_circles(1000, noise=0.1, factor=0.5, random_state=0),
    "nine blobs": make_blobs(1000, centers=9, n_features=3, cluster_std=1.5, random_state=0)[:2],
}


def measured(rows, labels, seed):
    """Of each method its accuracy, the share it matches where it says so, right when matched, seconds."""
    x, x_new, y, y_new = train_test_split(rows, labels, test_size=0.5, random_state=seed, stratify=labels)
    began = time.process_time()
    model, _ = slots.fit(x.astype(np.float32), y)
    answers = model.predict(x_new.astype(np.float32))
    right, matched = answers.labels == y_new, answers.matched
    found = {
        "slots.fit": (
            right.mean(),
            matched.mean(),
            right[matched].mean() if matched.any() else np.nan,
            time.process_time() - began,
        )
    }
    began = time.process_time()
    stream = slots.ContinualSlots(random_state=seed)
    for part in np.array_split(np.argsort(y, kind="stable"), 10):
        stream.partial_fit(x[part], y[part])
    answer = stream.decide(x_new)
    found["ContinualSlots"] = ((answer.labels == y_new).mean(), np.nan, np.nan, time.process_time() - began)
    for name, peer in {
        "logistic regression": LogisticRegressionCV(
            Cs=7, cv=3, max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False
        ),
        "5 nearest": KNeighborsClassifier(5),
    }.items():
        began = time.process_time()
        piped = make_pipeline(StandardScaler(), peer).fit(x, y)
        found[name] = ((piped.predict(x_new) == y_new).mean(), np.nan, np.nan, time.process_time() - began)
    return found


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print("accuracy, matched and right when matched in %, seconds")
    for name, (rows, labels) in TABLES.items():
        runs = [measured(rows, labels, seed) for seed in seeds]
        for method in runs[0]:
            *shares, seconds = np.mean([run[method] for run in runs], axis=0)
            figures = "  ".join("     -" if np.isnan(it) else f"{100 * it:6.2f}" for it in shares)
            print(f"{name:14s} {method:20s} {figures}  {seconds:6.2f}", flush=True)


if __name__ == "__main__":
    main()
