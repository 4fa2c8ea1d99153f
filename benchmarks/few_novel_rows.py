"""Novelty by `slots.NoveltyDetector` from 24, 40 and 80 rows, beside the local outlier factor of scikit-learn.

    python benchmarks/few_novel_rows.py clinc150.npz cifar10_resnet20.npz --seeds 6

Tables that come with scikit-learn, columns centred and divided by their deviation, and archives (``x_train``,
``y_train``, the first ten classes). The last third of the classes is foreign. Of the others so many rows are fitted,
with their labels and without, and up to 400 more are asked beside up to 400 foreign ones. Alarms are those at 5 %.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from protocols.data.arrays import load_archive
from slots import NoveltyDetector

RATE = 0.05
SIZES, ASKED, LEAST = (24, 40, 80), 400, 15
TABLES = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}


def sets(archives):
    """Name, rows and labels of each set."""
    for name, load in TABLES.items():
        x, y = load(return_X_y=True)
        yield name, StandardScaler().fit_transform(x).astype(np.float32), y
    for path in archives:
        data = load_archive(path)
        first = np.flatnonzero((data.y_train >= 0) & (data.y_train < 10))[:3000]
        yield path.stem, data.x_train[first].reshape(len(first), -1).astype(np.float32), data.y_train[first]


def measured(x, y, n, seed):
    """Alarms at 5 % and AUROC without labels and with them, and AUROC of the local outlier factor; None of too few."""
    classes = np.unique(y)
    foreign = np.isin(y, classes[-max(1, len(classes) // 3) :])
    known = np.random.default_rng(seed).permutation(np.flatnonzero(~foreign))
    if len(known) < n + LEAST:
        return None
    fitted, asked = known[:n], np.concatenate([known[n : n + ASKED], np.flatnonzero(foreign)[:ASKED]])
    found = []
    for labels in (None, y[fitted]):
        detector = NoveltyDetector(false_alarm_rate=RATE, seed=seed).fit(x[fitted], labels)
        alarms = detector.is_novel(x[asked])[~foreign[asked]]
        found += [alarms.mean(), roc_auc_score(foreign[asked], detector.predict(x[asked]))]
    peer = LocalOutlierFactor(novelty=True, n_neighbors=min(20, n - 1)).fit(x[fitted])
    return [*found, roc_auc_score(foreign[asked], -peer.score_samples(x[asked]))]


def main():
    """Measure all, and print the means of each set and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    print("| rows | alarms, % | AUROC, % | with labels: alarms, % | AUROC, % | local outlier factor, AUROC, % | fits |")
    print("|---|---|---|---|---|---|---|")
    every = []
    for name, x, y in sets(args.archives):
        found = [measured(x, y, n, seed) for n in SIZES for seed in range(args.seeds)]
        some = np.array([it for it in found if it is not None])
        every.append(some)
        print(f"| {name} | {' | '.join(f'{100 * it:.1f}' for it in some.mean(0))} | {len(some)} |", flush=True)
    both = np.concatenate(every)
    print(f"| all | {' | '.join(f'{100 * it:.1f}' for it in both.mean(0))} | {len(both)} |")
    print(f"Most alarms of one detector: {100 * both[:, 0].max():.1f} %, with labels {100 * both[:, 2].max():.1f} %.")


if __name__ == "__main__":
    main()
