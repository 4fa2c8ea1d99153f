"""Time of an update: against the size of the new data, of the old model and of its training data, and of refitting.

    python benchmarks/update.py --data-dir FOLDER --output benchmarks/results/update.json

FOLDER (or SLOTS_DATA_DIR) holds mnist.npz. Models of pixels are fitted on the digits 0-7 of the first 20,000 training
images; new data are the first N of the other 40,000, of all ten digits; an update is `propose` with a budget of 100
labels and `update` with those labels. Refits get the old and the new data with all labels: `slots.training.fit`, and
from scikit-learn 30 k-means prototypes a class, and the 1-nearest-neighbour classifier that keeps everything (its fit
only stores rows, so answering 1,000 images is timed with it). All of one repeat are timed in turn; medians.

Times are processor seconds of one thread, which a busy machine disturbs least; ``clock_s`` stands beside them.
``exponent`` is the slope of log time over log size by least squares.
"""

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import KNeighborsClassifier

import backbones
from protocols.data.loading import load_data
from protocols.provenance import commit, processor
from protocols.recipes.recipes import find_recipe
from slots.training.fitting import fit

FITTED_ON, BUDGET, NEW = 20_000, 100, 5000  # new data beside models of other sizes


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(1)
    data = load_data("mnist", data_dir=arguments.data_dir)
    x, y = data.x_train, data.y_train
    recipe = find_recipe("pixels", "").train
    config = replace(
        recipe,
        views=arguments.views,
        epochs=arguments.epochs,
        closing=replace(recipe.closing, reach=0.8),
    )
    times = {}
    models = {FITTED_ON: fitted(x, y, config, FITTED_ON)}
    models |= {n: fitted(x, y, config, n) for n in arguments.old_sizes if n != FITTED_ON}
    wide = [fitted(x, y, replace(config, slots_per_class=n, epochs=0), FITTED_ON) for n in arguments.slots_per_class]
    tasks = {}
    for size in arguments.sizes:
        tasks["new data", size] = lambda n=size: updated(models[FITTED_ON], x, y, n)
    for size in arguments.old_sizes:
        tasks["old training data", size] = lambda n=size: updated(models[n], x, y, NEW)
    for model in wide:
        tasks["old slots", model.head.n_slots] = lambda it=model: updated(it, x, y, NEW)
    for size in arguments.refits:
        tasks["refit, scikit-learn k-means a class", size] = lambda n=size: kmeans_refit(x, y, n)
        tasks["refit, scikit-learn 1-nearest neighbour", size] = lambda n=size: neighbours_refit(x, y, n, data.x_test)
        tasks["refit, slots.training.fit", size] = lambda n=size: refitted(x, y, config, n)
    updated(models[FITTED_ON], x, y, 1000)  # compiles
    for repeat in range(arguments.repeats):
        for (what, size), task in tasks.items():
            if repeat >= arguments.refit_repeats and "slots.training.fitting" in what:
                continue
            clock, cpu = time.perf_counter(), time.process_time()
            more = task()
            seconds = {"cpu_s": time.process_time() - cpu, "clock_s": time.perf_counter() - clock}
            times.setdefault((what, size), []).append(seconds | (more or {}))
            print(f"{what:40} {size:6} {seconds['cpu_s']:8.2f} s", flush=True)
        save(arguments, summary(times), models[FITTED_ON].head.n_slots, config)


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 2000, 5000, 10_000, 20_000, 40_000])
    parser.add_argument("--old-sizes", nargs="*", type=int, default=[5000, 20_000])
    parser.add_argument("--slots-per-class", nargs="*", type=int, default=[12, 40, 125, 375])
    parser.add_argument("--refits", nargs="*", type=int, default=[5000, 20_000])
    parser.add_argument("--views", default="none")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--refit-repeats", type=int, default=1, help="of our own fit, which takes longest")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def fitted(x, y, config, size):
    """A model of the digits 0-7 among the first so many images."""
    known = np.flatnonzero(y[:size] < 8)
    return fit(x[known], y[known], backbone=backbones.build("pixels", input_shape=(1, 28, 28)), config=config)[0]


def updated(model, x, y, size):
    """Propose and update; the parts' processor seconds."""
    model = copy.deepcopy(model)
    rows, truth = x[FITTED_ON : FITTED_ON + size], y[FITTED_ON : FITTED_ON + size]
    start = time.process_time()
    proposal = model.propose(rows, budget=BUDGET)
    proposed = time.process_time()
    done = model.update(rows, {int(i): int(truth[i]) for i in proposal.queries}, proposal=proposal)
    return {
        "propose_s": proposed - start,
        "update_s": time.process_time() - proposed,
        "unmatched": done.n_unmatched,
        "slots_added": done.slots_added,
    }


def refitted(x, y, config, size):
    """Our own fit of everything."""
    n = FITTED_ON + size
    fit(x[:n], y[:n], backbone=backbones.build("pixels", input_shape=(1, 28, 28)), config=config)


def kmeans_refit(x, y, size):
    """30 prototypes in each class."""
    rows, labels = unit_rows(x[: FITTED_ON + size]), y[: FITTED_ON + size]
    for label in np.unique(labels):
        MiniBatchKMeans(30, n_init=1, batch_size=4096, random_state=0).fit(rows[labels == label])


def neighbours_refit(x, y, size, queries):
    """Everything is kept; 1,000 answers."""
    model = KNeighborsClassifier(1, algorithm="brute").fit(unit_rows(x[: FITTED_ON + size]), y[: FITTED_ON + size])
    model.predict(unit_rows(queries[:1000]))


def unit_rows(images):
    """Flatten and scale each image to unit length."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def summary(times):
    """Medians of the repeats."""
    rows = []
    for (what, size), found in times.items():
        medians = {key: round(float(np.median([it[key] for it in found])), 4) for key in found[0]}
        rows.append({"what": what, "size": size, "repeats": len(found)} | medians)
    return rows


def exponent(rows, what, key, least=0):
    """Slope of log time over log size."""
    points = [(row["size"], row[key]) for row in rows if row["what"] == what and row["size"] >= least]
    if len(points) < 2:
        return None
    sizes, seconds = np.log(np.array(points, float)).T
    return round(float(np.polyfit(sizes, seconds, 1)[0]), 3)


def ratios(rows):
    """Refits over the update with as much new data."""
    update = {row["size"]: row["cpu_s"] for row in rows if row["what"] == "new data"}
    return {
        f"{row['what']}, {row['size']} new": round(row["cpu_s"] / update[row["size"]], 2)
        for row in rows
        if row["what"].startswith("refit") and row["size"] in update
    }


def save(arguments, rows, n_slots, config):
    """Write and print what there is so far."""
    keys = ("cpu_s", "propose_s", "update_s")
    document = {
        "schema": 1,
        "what": "processor seconds of an update on one thread",
        "command": " ".join(["python", "benchmarks/update.py", "--data-dir", "FOLDER", *shown(sys.argv[1:])]),
        "fitted_on": FITTED_ON,
        "labels_asked": BUDGET,
        "slots_before": n_slots,
        "seed": config.seed,
        "threads": 1,
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "torch", "scikit-learn", "numba")},
        },
        "exponent_of_new_data": {key: exponent(rows, "new data", key) for key in keys},
        "exponent_of_new_data_from_5000": {key: exponent(rows, "new data", key, 5000) for key in keys},
        "exponent_of_old_slots": {key: exponent(rows, "old slots", key) for key in keys},
        "exponent_of_old_training_data": {key: exponent(rows, "old training data", key) for key in keys},
        "refit_over_update": ratios(rows),
        "rows": rows,
    }
    print(json.dumps({key: it for key, it in document.items() if key.startswith(("exponent", "refit"))}, indent=1))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def shown(words):
    """The options without the folders of this machine."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--data-dir", "--output"):
            kept.append(word)
        skip = word in ("--data-dir", "--output")
    return kept


if __name__ == "__main__":
    main()
