"""Tables as they are: columns of any units, by default settings, beside the same columns brought to one scale.

    python benchmarks/tables.py --seeds 3

Small tables that come with scikit-learn, half of the rows held out, stratified. ``raw`` is the table as it is; for ``scaled``
each column is centred and divided by its deviation over the training rows. Logistic regression (scikit-learn,
``C`` by cross-validation) gets the scaled columns.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import slots

TABLES = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}


def measured(data, seed):
    """Accuracy of each way, the share matched of ours on raw columns, and its seconds of processor time."""
    x, x_new, y, y_new = train_test_split(
        data.data, data.target, test_size=0.5, random_state=seed, stratify=data.target
    )
    scaler = StandardScaler().fit(x)
    found = {}
    for name, (rows, new) in {"raw": (x, x_new), "scaled": (scaler.transform(x), scaler.transform(x_new))}.items():
        began = time.process_time()
        model, _ = slots.fit(rows.astype(np.float32), y)
        answers = model.predict(new.astype(np.float32))
        right = answers.labels == y_new
        found[f"slots.fit, {name}"] = (right.mean(), answers.matched.mean(), time.process_time() - began)
    began = time.process_time()
    peer = LogisticRegressionCV(Cs=7, cv=3, max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False)
    peer.fit(scaler.transform(x), y)
    right = peer.predict(scaler.transform(x_new)) == y_new
    found["logistic regression, scaled"] = (right.mean(), np.nan, time.process_time() - began)
    return found


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    for name, load in TABLES.items():
        runs = [measured(load(), seed) for seed in seeds]
        for way in runs[0]:
            right, matched, seconds = np.mean([run[way] for run in runs], axis=0)
            print(
                f"{name:14s} {way:28s} {100 * right:6.2f} %  matched {100 * matched:6.2f} %  {seconds:5.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
