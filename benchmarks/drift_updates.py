"""The drift monitor of a model that learns every night: false alarms, and how soon a change is found.

    python benchmarks/drift_updates.py --output benchmarks/results/drift-updates.json

Three overlapping blobs in six dimensions; of each fit five generations, one a night, each made by an update on a
night's inputs of which one in ten belongs to a fourth blob. Each stream has fresh inputs, and fresh held-out examples
to be compared with. Three ways to watch the same answers: the novelty by the slots of the fit in one era (the monitor
of the service); that by all slots, an era a generation, each after the first compared with its own stream (as the
service did before); and that by all slots in one era. It stops where the promise is broken: more alarms of the first
than 1 % of the familiar streams allow (with probability 0.999), or half a deviation found after more than 200 inputs in
the median.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path

import numpy as np
from drift import summary
from scipy import stats

from protocols.provenance import commit, hardware, versions
from protocols.service.drift import Monitor
from slots.training import TrainConfig, fit

NIGHTS, NIGHT, KEPT = 5, 200, 225
BEFORE = 20  # inputs from the change until the next update
CHANGE = 2 * NIGHT - BEFORE  # the change's place in a stream
SPREAD, CENTRES = 1.2, np.eye(6, dtype=np.float32)[:4] * 3
WAYS = {
    "by_fit": "novelty by the slots of the fit, one era",
    "era_a_generation": "novelty by all slots, an era a generation, after the first against its own stream",
    "all_slots": "novelty by all slots, one era",
}


def inputs(rng, n, *, spread=SPREAD, new=0.0):
    """Rows about the first three centres, a share of them about the fourth, and their labels."""
    labels = np.where(rng.random(n) < new, 3, rng.integers(0, 3, n))
    return (CENTRES[labels] + rng.normal(0, spread, (n, 6))).astype(np.float32), labels


def generations(seed):
    """A model as it was fitted, and after each night's update."""
    rng = np.random.default_rng([0, seed])
    model, _ = fit(*inputs(rng, 1500), config=TrainConfig(epochs=2, slots_per_class=2, held_out=0.3, seed=seed))
    made = [model]
    for _ in range(NIGHTS - 1):
        made.append(copy.deepcopy(made[-1]))
        made[-1].update(inputs(rng, NIGHT, new=0.1)[0])
    return made


def wider(model, seed):
    """The spread of the blobs that lifts the model's mean score by half a deviation."""

    def mean(spread):
        return model.examine(inputs(np.random.default_rng([1, seed]), 4000, spread=spread)[0]).scores_by_fit

    usual = mean(SPREAD)
    low, high = SPREAD, 3 * SPREAD
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle).mean() < usual.mean() + usual.std() / 2 else (low, middle)
    return (low + high) / 2


def scored(models, rng, streams, change):
    """Held-out scores, and scores of streams by the fit's slots and by all; ``change`` are options of `inputs`."""
    kept = models[0].examine(inputs(rng, streams * KEPT)[0]).scores_by_fit.reshape(streams, KEPT)
    by_fit, by_all = [], []
    for night, model in enumerate(models):
        usual, changed = inputs(rng, streams * NIGHT)[0], inputs(rng, streams * NIGHT, **change)[0]
        place = night * NIGHT + np.arange(streams * NIGHT) % NIGHT
        found = model.examine(np.where((place >= CHANGE)[:, None], changed, usual))
        by_fit.append(found.scores_by_fit.reshape(streams, NIGHT))
        by_all.append(found.novelty.scores.reshape(streams, NIGHT))
    return kept, np.concatenate(by_fit, 1), np.concatenate(by_all, 1)


def alarm(calibration, scores, seed):
    """Number of the input that raises the alarm, or infinity."""
    monitor = Monitor(calibration, seed=seed)
    found = monitor.observe(scores, np.full(len(scores), 2), np.zeros(len(scores), int), 0.0).alarm
    return np.inf if found is None else found.item


def watched(kept, by_fit, by_all, seed):
    """The first alarm of one stream in each way."""
    eras = [alarm(kept, by_all[:NIGHT], seed)]
    eras += [at + alarm((), by_all[at : at + NIGHT], seed) for at in range(NIGHT, len(by_all), NIGHT)]
    ways = {"by_fit": alarm(kept, by_fit, seed), "era_a_generation": min(eras), "all_slots": alarm(kept, by_all, seed)}
    assert ways.keys() == WAYS.keys()
    return ways


def main():
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=25)
    parser.add_argument("--streams", type=int, default=40, help="Of each fit and case.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started = time.process_time()
    alarms = {"familiar": [], "half a deviation": [], "a new class, one input in four": []}
    added, spreads = [], []
    for seed in range(arguments.fits):
        models = generations(seed)
        added.append([it.head.n_slots for it in models])
        spreads.append(wider(models[0], seed))
        for case, change in zip(alarms, ({}, {"spread": spreads[-1]}, {"new": 0.25}), strict=True):
            rng = np.random.default_rng([2, seed, len(case)])
            for stream, parts in enumerate(zip(*scored(models, rng, arguments.streams, change), strict=True)):
                alarms[case].append(watched(*parts, seed * arguments.streams + stream))
        print(f"fit {seed + 1} of {arguments.fits}: {time.process_time() - started:.0f} s", file=sys.stderr)
    found = {case: summary(it, None if case == "familiar" else CHANGE) for case, it in alarms.items()}
    result = {
        "schema": 1,
        "what": "alarms of the drift monitor over nightly updates; stops where the promise is broken",
        "command": " ".join(["python", "benchmarks/drift_updates.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": hardware(),
        "versions": versions("scipy"),
        "ways": WAYS,
        "fits": arguments.fits,
        "nights": NIGHTS,
        "inputs_a_night": NIGHT,
        "calibration": KEPT,
        "change_before_an_update": BEFORE,
        "slots": added,
        "spreads": [round(it, 3) for it in spreads],
        "found": found,
        "processor_s": round(time.process_time() - started),
    }
    print(json.dumps(result, indent=1))
    familiar, shift = found["familiar"]["by_fit"], found["half a deviation"]["by_fit"]
    if familiar["false_alarms"] > stats.binom.ppf(0.999, familiar["streams"], 0.01):
        raise AssertionError(f"familiar: {familiar}")
    if shift["median_delay"] is None or shift["median_delay"] > 200:
        raise AssertionError(f"half a deviation: {shift}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
