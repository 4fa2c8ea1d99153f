"""Novelty: `slots.ood.NoveltyDetector` with at most 1,000 prototypes against detectors that keep the training set.

    pip install pytorch-ood faiss-cpu
    python benchmarks/novelty.py --data-dir FOLDER --weights FOLDER --output benchmarks/results/novelty.json

The first folder (or SLOTS_DATA_DIR) holds NAME.npz of mnist, fashion_mnist, notmnist and cifar10, the second
cifar10_resnet20.pt and cifar10_resnet56.pt (akamaster/pytorch_resnet_cifar10). All detectors get the same features of
the same run (`novelty_features.py`). Peers: k nearest neighbours of unit features (Sun et al. 2022) by FAISS;
Mahalanobis (Lee et al. 2018), relative Mahalanobis (Ren et al. 2021), ViM (Wang et al. 2022), energy (Liu et al. 2020)
and MSP (Hendrycks and Gimpel 2017) by pytorch-ood; without it those rows are missing. ``--model FOLDER`` measures a
model fitted on some of the MNIST digits instead. Other rows stay in the output.

``fpr95`` is the share of foreign inputs accepted where 95 % of the familiar ones are; ``fpr95_foreign`` the share of
familiar inputs flagged where 95 % of the foreign ones are; ``aupr_familiar`` and ``aupr_foreign`` take the one or the
other as positive. Means leave out the noise, which has its own columns.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import faiss
import novelty_features as nf
import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from slots.conformal import p_values
from slots.ood import NoveltyDetector, combine, distances

NOISE = ("gaussian noise", "uniform noise")
COUNTS = (10, 30, 100)  # 300 and 1,000 are measured with every seed
KEYS = ("setting", "seed", "method", "remembered")  # what makes a row
RATES = (0.01, 0.05, 0.1)
SHARES = ((0.6, 0.3, 0.1), (0.45, 0.45, 0.1), (0.3, 0.6, 0.1), (0.8, 0.1, 0.1))  # of the false alarms


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    rows = []
    if arguments.model:
        arguments.settings = ["mnist, slot model"]
        slot_model(arguments, rows)
        save(arguments, rows)
        return
    for setting in arguments.settings:
        for seed in arguments.seeds:
            features = SETTINGS[setting](arguments, seed)
            write = writer(rows, setting, seed, features)
            if not arguments.ours:
                peers(features, write)
            detector = ours(features, write, seed)
            if seed == 0:
                if not arguments.ours:
                    choices(features, write, detector)
                by_count(features, write)
            save(arguments, rows)
    for line in table(rows):
        print(line)


SETTINGS = {
    "mnist pixels": lambda a, seed: nf.pixels(a.data_dir, "mnist", seed),
    "fashion_mnist pixels": lambda a, seed: nf.pixels(a.data_dir, "fashion_mnist", seed),
    "mnist net": lambda a, seed: nf.small_net(a.data_dir, "mnist", seed, a.cache, n_test=5000),
    "fashion_mnist net": lambda a, seed: nf.small_net(a.data_dir, "fashion_mnist", seed, a.cache, n_test=5000),
    "cifar10 resnet20": lambda a, seed: nf.resnet(bank(a, 20), seed),
    "cifar10 resnet56": lambda a, seed: nf.resnet(bank(a, 56, n_train=10_000, n_far=1000), seed),
    "mnist pixels, 6 classes against 4": lambda a, seed: nf.pixels(a.data_dir, "mnist", seed, near=True),
    "mnist net, 6 classes against 4": lambda a, seed: nf.small_net(a.data_dir, "mnist", seed, a.cache, near=True),
    "fashion_mnist net, 6 classes against 4": lambda a, seed: nf.small_net(
        a.data_dir, "fashion_mnist", seed, a.cache, near=True
    ),
    "cifar10 resnet20, 6 classes against 4": lambda a, seed: nf.resnet(bank(a, 20), seed, near=True),
}


def bank(arguments, depth, **sizes):
    """Features of one ResNet."""
    return nf.resnet_bank(arguments.data_dir, arguments.weights, depth, arguments.cache, **sizes)


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("runs/novelty"), help="where features of networks are kept")
    parser.add_argument("--model", type=Path, help="a model folder of MNIST digits")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ours", action="store_true", help="measure the detector again, not the peers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("--data-dir or SLOTS_DATA_DIR is needed")
    return arguments


def quality(familiar, foreign):
    """AUROC, AUPR and false-positive rates of scores that are higher for what is foreign."""
    scores = np.concatenate([familiar, foreign])
    truth = np.repeat([0, 1], [len(familiar), len(foreign)])
    return {
        "auroc": roc_auc_score(truth, scores),
        "aupr_foreign": average_precision_score(truth, scores),
        "aupr_familiar": average_precision_score(1 - truth, -scores),
        "fpr95": float((foreign <= np.quantile(familiar, 0.95)).mean()),
        "fpr95_foreign": float((familiar >= np.quantile(foreign, 0.05)).mean()),
    }


def writer(rows, setting, seed, features):
    """Function that measures a method's scores, adds a row and prints it."""

    def write(method, remembered, score, **more):
        started = time.perf_counter()
        familiar = score(features.test)
        far = {name: quality(familiar, score(x)) for name, x in features.far.items()}
        counted = [found for name, found in far.items() if name not in NOISE]
        mean = {key: float(np.mean([found[key] for found in counted])) for key in counted[0]}
        seconds = round(time.perf_counter() - started, 2)
        rows.append(
            {"setting": setting, "seed": seed, "method": method, "remembered": remembered, "mean": mean, "far": far}
            | {"n_train": len(features.train), "n_test": len(familiar), "network_accuracy": features.accuracy}
            | {"score_s": seconds} | more
        )  # fmt: skip
        noise = " ".join(f"{100 * found['fpr95']:.1f}" for name, found in far.items() if name in NOISE)
        print(
            f"{setting:38} {seed} {method:44} {remembered:6} auroc {100 * mean['auroc']:6.2f} "
            f"fpr95 {100 * mean['fpr95']:5.1f} noise {noise or '-'}",
            flush=True,
        )

    return write


def unit(x):
    """Rows of unit length."""
    return np.ascontiguousarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def peers(features, write):
    """What others would do with the same features."""
    index = faiss.IndexFlatIP(features.train.shape[1])
    index.add(unit(features.train))
    for k in (1, 50):
        write(f"{k} nearest, unit features (FAISS)", index.ntotal, lambda x, k=k: -index.search(unit(x), k)[0][:, -1])
    if features.weight is None:
        plain = faiss.IndexFlatL2(features.train.shape[1])
        plain.add(features.train)
        write("1 nearest, raw features (FAISS)", plain.ntotal, lambda x: plain.search(x, 1)[0][:, 0])
    try:
        from pytorch_ood.detector import RMD, EnergyBased, Mahalanobis, MaxSoftmax, ViM
    except ImportError as missing:
        print(f"pytorch-ood: skipped, {missing.name} is not installed")
        return
    train, labels = torch.from_numpy(features.train).double(), torch.from_numpy(features.y_train)
    for name, detector in (("Mahalanobis", Mahalanobis(None)), ("relative Mahalanobis", RMD(None))):
        detector.fit_features(train.float(), labels)
        write(f"{name} (pytorch-ood)", 0, lambda x, d=detector: d.predict_features(torch.from_numpy(x)).numpy())
    if features.weight is None:
        return
    weight, bias = torch.from_numpy(features.weight), torch.from_numpy(features.bias)
    vim = ViM(None, d=train.shape[1] // 2, w=weight, b=bias).fit_features(train.float(), labels)
    write("ViM (pytorch-ood)", 0, lambda x: vim.predict_features(torch.from_numpy(x)).numpy())
    logits = {"energy": EnergyBased.score, "MSP": lambda z: MaxSoftmax.score(z.softmax(1))}
    for name, score in logits.items():
        write(f"{name} (pytorch-ood)", 0, lambda x, s=score: s(torch.from_numpy(x) @ weight.T + bias).numpy())


def ours(features, write, seed):
    """The detector as it comes, and its false alarms: calibrated on held-out examples, and on ones trained on."""
    for count in (300, 1000):
        started = time.perf_counter()
        detector = NoveltyDetector(count, seed=seed).fit(features.train)
        alarms = {"calibrated_on_training": false_alarms(detector, features)}
        detector.calibrate(features.held_out)
        alarms["calibrated_on_held_out"] = false_alarms(detector, features)
        fit_s = round(time.perf_counter() - started, 2)
        more = {"shares": detector.shares, "fit_s": fit_s, "false_alarms": alarms}
        write("NoveltyDetector", count, detector.predict, **more)
        write("k-means, angle to the nearest", count, lambda x, d=detector: angle(unit(x), d.prototypes))
    return detector


def false_alarms(detector, features):
    """Share of test inputs flagged, and of each foreign set, at each rate."""
    familiar = p_values(detector.predict(features.test), detector.calibration)
    found = {name: p_values(detector.predict(x), detector.calibration) for name, x in features.far.items()}
    return {
        str(rate): {"test": float((familiar <= rate).mean())}
        | {name: float((p <= rate).mean()) for name, p in found.items()}
        for rate in RATES
    }


def slot_model(arguments, rows):
    """A fitted model as its own detector: its slots are the prototypes, its fit's held-out examples the calibration."""
    import backbones
    from slots.model import SlotModel

    model = SlotModel.load(arguments.model, build=backbones.build)
    data = nf.load(arguments.data_dir, "mnist")
    inside = np.isin(data["y_test"], model.head.labels.numpy())
    far = {"held-out classes": data["x_test"][~inside]}
    far |= {name: nf.load(arguments.data_dir, name)["x_test"][:1000] for name in nf.FAR["mnist"]}
    far |= nf.noises(data["x_test"], 500, np.random.default_rng(0))

    cached = {}

    def score(x):
        if id(x) not in cached:
            cached[id(x)] = model.assess_novelty(x[..., None] if x.ndim == 3 else x).scores
        return cached[id(x)]

    features = nf.Features(np.zeros((0, 0)), None, None, data["x_test"][inside], far)
    detector = SimpleNamespace(predict=score, calibration=model.novelty.calibration)
    alarms = {"calibrated_on_held_out": false_alarms(detector, features)}
    more = {"false_alarms": alarms, "n_calibration": len(detector.calibration)}
    writer(rows, "mnist, slot model", 0, features)("SlotModel.assess_novelty", model.head.n_slots, score, **more)
    for name, share in alarms["calibrated_on_held_out"]["0.05"].items():
        print(f"flagged at 0.05: {name:20} {100 * share:6.2f} %")


def choices(features, write, detector):
    """Which distance: parts of the detector's score and other ways to make one, from the same prototypes."""
    known, cached = detector.prototypes.numpy(), {}
    count = len(known)

    def found(x):
        if id(x) not in cached:
            cached[id(x)] = distances(torch.from_numpy(x)[:, None], detector.prototypes, detector.metric)
        return cached[id(x)]

    reference = found(features.held_out).values.numpy()
    middle = np.median(reference, 0)
    reach = np.quantile(reference, 0.95, axis=0) - middle

    def z(x):
        return (found(x).values.numpy() - middle) / reach

    for place, name in enumerate(("angle", "whitened", "size")):
        write(f"choice: {name} alone", count, lambda x, i=place: found(x).values.numpy()[:, i])
    write("choice: largest of angle and whitened, scaled", count, lambda x: z(x)[:, :2].max(1))
    write("choice: sum of angle and whitened, scaled", count, lambda x: z(x)[:, :2].sum(1))
    write("choice: largest of whitened and size, scaled", count, lambda x: z(x)[:, 1:].max(1))
    write("choice: largest of all three, scaled", count, lambda x: z(x).max(1))
    for shares in SHARES:
        metric = replace(detector.metric, shares=shares)
        write(f"choice: shares {shares}", count, lambda x, m=metric: combine(found(x), m)[0])

    def least(x):
        values = found(x).values.numpy()
        chances = [p_values(column, usual) for column, usual in zip(values.T, reference.T, strict=True)]
        return -(np.array(chances) / np.array(detector.metric.shares)[:, None]).min(0)

    write("choice: least p-value, Bonferroni", count, least)
    write("choice: mean angle to 5 nearest", count, lambda x: five_nearest(unit(x), known))
    mean, std = spreads(unit(features.train), known)
    write("choice: standardised angle", count, lambda x: standardised(unit(x), known, mean, std))
    if features.train.shape[1] <= 128:
        for shrinkage in (0.2, 0.01, 0.001):
            rival = NoveltyDetector(300, shrinkage=shrinkage).fit(features.train)
            write(f"choice: shrinkage {shrinkage}", 300, rival.predict)
    means = unit(np.stack([unit(features.train[features.y_train == c]).mean(0) for c in np.unique(features.y_train)]))
    write("choice: angle to class means", len(means), lambda x: angle(unit(x), means))


def angle(x, known):
    """Negative largest cosine."""
    return -np.concatenate([(part @ np.asarray(known).T).max(1) for part in np.array_split(x, 1 + len(x) // 2000)])


def five_nearest(x, known):
    """Mean angle to the five nearest prototypes."""
    cosine = np.clip(x @ known.T, -1, 1)
    return np.arccos(-np.partition(-cosine, 5, axis=1)[:, :5]).mean(1)


def spreads(x, known):
    """Mean and spread of the angle in each prototype's part of the training data, shrunk to the overall ones."""
    cosine = np.clip(np.concatenate([part @ known.T for part in np.array_split(x, 1 + len(x) // 2000)]), -1, 1)
    nearest, angles = cosine.argmax(1), np.arccos(cosine.max(1))
    n = np.bincount(nearest, minlength=len(known))
    mean = np.bincount(nearest, angles, len(known)) / np.maximum(n, 1)
    variance = np.bincount(nearest, angles**2, len(known)) / np.maximum(n, 1) - mean**2
    share = n / (n + 10)
    return share * mean + (1 - share) * angles.mean(), np.sqrt(
        share * variance.clip(0) + (1 - share) * angles.var() + 1e-12
    )


def standardised(x, known, mean, std):
    """Smallest standardised angle."""
    return ((np.arccos(np.clip(x @ known.T, -1, 1)) - mean) / std).min(1)


def by_count(features, write):
    """The detector and bare k-means at the same numbers of prototypes."""
    for count in COUNTS:
        detector = NoveltyDetector(count).fit(features.train)
        write("NoveltyDetector", count, detector.predict, shares=detector.shares)
        write("k-means, angle to the nearest", count, lambda x, d=detector: angle(unit(x), d.prototypes))


def table(rows):
    """One line a setting: the detector beside the best peer, means over seeds."""
    for setting in dict.fromkeys(row["setting"] for row in rows):
        means = {}
        for row in rows:
            if row["setting"] == setting and not row["method"].startswith("choice"):
                means.setdefault((row["method"], row["remembered"]), []).append(row["mean"])
        for (method, remembered), found in means.items():
            auroc, fpr = (100 * np.mean([it[key] for it in found]) for key in ("auroc", "fpr95"))
            yield f"{setting:38} {method:44} {remembered:6} {auroc:6.2f} / {fpr:5.1f}  ({len(found)} seeds)"


def save(arguments, rows):
    """Write what there is so far."""
    if not arguments.output:
        return
    kept = []
    if arguments.output.exists():
        before = json.loads(arguments.output.read_text())["rows"]
        measured = {tuple(row[key] for key in KEYS) for row in rows}
        kept = [row for row in before if tuple(row[key] for key in KEYS) not in measured]
    document = {
        "schema": 1,
        "what": "novelty: AUROC, AUPR and FPR at 95 % TPR of detectors on the same features",
        "threads": arguments.threads,
        "command": "python benchmarks/novelty.py --data-dir FOLDER --weights FOLDER --output FILE",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": versions(),
        "rows": kept + rounded(rows),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def rounded(value):
    """The same with five places."""
    if isinstance(value, dict):
        return {key: rounded(it) for key, it in value.items()}
    if isinstance(value, list):
        return [rounded(it) for it in value]
    return round(float(value), 5) if isinstance(value, float) else value


def processor():
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions():
    """Versions of what took part."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "scikit-learn", "faiss-cpu", "pytorch-ood"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    main()
