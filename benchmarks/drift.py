"""The drift monitor: false alarms on familiar streams, and how soon a change is found.

    SLOTS_DATA_DIR=FOLDER python benchmarks/drift.py --mnist --output benchmarks/results/drift.json

Drawn scores (normal, 500 for calibration), and with ``--mnist`` the novelty scores of MNIST's test digits by a detector
that knows 0 to 7. Beside the monitor: the simple jumper as published on the same p-values, the monitor's martingale on
p-values against the calibration set alone, and two detectors of river with their defaults, on scores standardised by
the calibration set's mean and deviation. It stops where the promise is broken: more alarms than 1 % of the familiar
streams allow (with probability 0.999), or a shift of half a deviation found after more than 200 inputs in the median.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

from protocols.provenance import commit, hardware, versions
from protocols.service.drift import Monitor, OnlineRanks, SimpleJumper
from protocols.service.drift.monitor import BETS

CALIBRATION, THRESHOLD = 500, 100
BOUND = np.log(THRESHOLD)
METHODS = {
    "monitor": "ours",
    "published": "simple jumper as published (slopes -1, 0, 1, jump 0.01) on the same p-values",
    "fixed": "the monitor's martingale on p-values against the calibration set alone",
    "page_hinkley": "river's PageHinkley, defaults",
    "adwin": "river's ADWIN, defaults",
}


def first(reached):
    """Number of the first input at which it is so; infinity where there is none."""
    return int(np.argmax(reached)) if np.any(reached) else np.inf


def watch(calibration, scores, seed, capacity=10_000, peers=True):
    """Number of the input at which each method raises its first alarm."""
    kinds, labels = np.full(len(scores), 2), np.zeros(len(scores), int)
    monitor = Monitor(calibration, threshold=THRESHOLD, capacity=capacity, seed=seed)
    seen = monitor.observe(scores, kinds, labels, 0.0)
    found = {"monitor": np.inf if seen.alarm is None else seen.alarm.item}
    if not peers:
        return found
    found["published"] = first(SimpleJumper().bet(seen.p_values) >= BOUND)
    above = len(calibration) - np.searchsorted(np.sort(calibration), scores, side="right")
    ties = 1 - np.random.default_rng([9, seed]).random(len(scores))
    fixed = SimpleJumper(BETS, jump=0.002, asleep=0.5).bet((above + ties) / (len(calibration) + 1))
    found["fixed"] = first(fixed >= BOUND)
    return found | watch_by_river((scores - calibration.mean()) / calibration.std())


def watch_by_river(scores):
    """The same by river; nothing where it is not installed."""
    try:
        from river.drift import ADWIN, PageHinkley
    except ImportError:
        return {}
    found = {}
    for name, detector in (("page_hinkley", PageHinkley()), ("adwin", ADWIN())):
        found[name] = np.inf
        for item, score in enumerate(scores.tolist()):
            detector.update(score)
            if detector.drift_detected:
                found[name] = item
                break
    return found


def summary(alarms, change=None):
    """Of each method the share of streams with a false alarm, and the delay where there was none."""
    rows = {}
    for name in alarms[0]:
        at = np.array([it[name] for it in alarms])
        false = np.isfinite(at) if change is None else at < change
        rows[name] = {"streams": len(at), "false_alarms": int(false.sum())}
        if change is not None:
            delay = at[~false] - change + 1
            found = np.isfinite(delay)
            # inputs from the change until the alarm, both counted; of streams without a false alarm
            rows[name] |= {
                "found": int(found.sum()),
                "median_delay": quantile(delay, 0.5),
                "delay_90": quantile(delay, 0.9),
            }
    return rows


def quantile(delay, share):
    """Smallest delay that this share of the streams does not exceed; None where so many were not found."""
    at = np.sort(delay)[max(0, int(np.ceil(share * len(delay))) - 1)] if len(delay) else np.inf
    return int(at) if np.isfinite(at) else None


def drawn(rng, length, change=None, shift=0.0, share=1.0):
    """Calibration scores and a stream of normal ones, shifted from the change on, all or a share."""
    scores = rng.normal(size=CALIBRATION + length)
    if change is not None:
        scores[CALIBRATION + change :] += shift * (rng.random(length - change) < share)
    return scores[:CALIBRATION], scores[CALIBRATION:]


def familiar(streams, length):
    """False alarms on streams without any change."""
    rows = {}
    for capacity, peers in ((10_000, True), (600, False)):
        alarms = [
            watch(*drawn(np.random.default_rng([0, seed]), length), seed, capacity, peers) for seed in range(streams)
        ]
        rows[f"capacity {capacity}"] = summary(alarms)
    return rows


CHANGES = [  # shift in deviations, share of the inputs that it moves, familiar inputs before, inputs after
    (0.5, 1.0, 0, 2000), (0.5, 1.0, 1000, 2000), (0.5, 1.0, 20_000, 3000), (0.25, 1.0, 1000, 5000),
    (1.0, 1.0, 1000, 1000), (4.0, 1.0, 1000, 500), (4.0, 0.1, 1000, 3000), (4.0, 0.05, 1000, 5000),
]  # fmt: skip


def changes(streams):
    """How soon shifts of drawn scores are found."""
    rows = []
    for shift, share, change, after in CHANGES:
        alarms = [
            watch(*drawn(np.random.default_rng([1, seed]), change + after, change, shift, share), seed)
            for seed in range(streams if change < 10_000 else streams // 2)
        ]
        rows.append({"shift": shift, "share": share, "familiar_before": change, **summary(alarms, change)})
    return rows


def mnist(streams):
    """Scores of real images: familiar digits in random order, in the order of the file, and mixed with others."""
    from protocols.data import load_data
    from slots.novelty import NoveltyDetector

    digits, clothes = load_data("mnist"), load_data("fashion_mnist")
    flat = {name: it.reshape(len(it), -1).astype("float32") for name, it in (
        ("train", digits.x_train), ("test", digits.x_test), ("clothes", clothes.x_test),
    )}  # fmt: skip
    known, test_known = digits.y_train < 8, digits.y_test < 8
    rows, labels = flat["train"][known][:20_000], digits.y_train[known][:20_000]
    detector = NoveltyDetector(seed=0).fit(rows, labels)
    kept = detector.assess(flat["train"][known][20_000:22_000]).scores  # other images of the training part
    test, foreign = detector.assess(flat["test"]).scores, detector.assess(flat["clothes"][:2000]).scores
    pool, new = test[test_known], test[~test_known]
    found = {"known": "digits 0 to 7", "rows": len(rows), "calibration": CALIBRATION, "seed": 0}
    orders = [np.random.default_rng([2, seed]) for seed in range(streams)]
    mixed = [rng.permutation(pool)[: CALIBRATION + 3000] for rng in orders]
    found["familiar"] = summary([watch(it[:CALIBRATION], it[CALIBRATION:], seed) for seed, it in enumerate(mixed)])
    found["changes"] = []
    for name, others, share in (
        ("digits 8 and 9", new, 0.2),
        ("digits 8 and 9", new, 0.05),
        ("clothes", foreign, 0.05),
    ):
        alarms = []
        for seed in range(streams // 5):
            rng = np.random.default_rng([3, seed])
            scores = mixed[seed].copy()
            places = CALIBRATION + 1000 + np.flatnonzero(rng.random(2000) < share)
            scores[places] = rng.choice(others, len(places), replace=False)
            alarms.append(watch(scores[:CALIBRATION], scores[CALIBRATION:], seed))
        found["changes"].append({"what": name, "share": share, "familiar_before": 1000, **summary(alarms, 1000)})
    # Other writers: the test part is not exchangeable with the training part, and a promise about it would be broken.
    other = [watch(kept, it[CALIBRATION:], seed, peers=False) for seed, it in enumerate(mixed[: streams // 5])]
    found["calibrated_on_the_training_part"] = summary(other)
    alarm = watch(np.empty(0), pool, 0, peers=False)["monitor"]
    found["test_part_in_the_order_of_the_file"] = {
        "inputs": len(pool), "first_alarm": None if np.isinf(alarm) else int(alarm),
        "mean_score_of_halves": [float(it.mean()) for it in np.array_split(pool, 2)],
        "in_random_order": summary([watch(np.empty(0), it, seed, peers=False) for seed, it in enumerate(mixed)]),
    }  # fmt: skip
    return found


def cost():
    """Microseconds of processor time an input, with the memory full."""
    rows = {}
    for capacity in (1000, 10_000, 100_000):
        rng = np.random.default_rng(0)
        monitor, scores = Monitor(rng.normal(size=capacity), capacity=capacity), rng.normal(size=(200, 64))
        kinds, labels = np.full(64, 2), np.zeros(64, int)
        ranks = OnlineRanks(rng.normal(size=capacity), capacity=capacity)
        started = time.process_time()
        for part in scores:
            ranks.rank(part)
        ranked = time.process_time()
        for part in scores:
            monitor.observe(part, kinds, labels, 0.0)
        watched = time.process_time()
        state = monitor.to_bytes()
        rows[f"capacity {capacity}"] = {
            "rank_us": round((ranked - started) / scores.size * 1e6, 1),
            "observe_us": round((watched - ranked) / scores.size * 1e6, 1),
            "state_bytes": len(state),
        }
    return rows


def check(result):
    """Stop where the promise is broken."""
    for capacity, rows in result["familiar"].items():
        row = rows["monitor"]
        if row["false_alarms"] > stats.binom.ppf(0.999, row["streams"], 1 / THRESHOLD):
            raise AssertionError(f"{capacity}: {row}")
    for row in result["changes"]:
        delay = row["monitor"]["median_delay"]
        if (row["shift"], row["share"]) == (0.5, 1.0) and (delay is None or delay > 200):
            raise AssertionError(f"half a deviation after {row['familiar_before']}: {row['monitor']}")


def main():
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000, help="Familiar streams; a fifth as many for changes.")
    parser.add_argument("--length", type=int, default=5000, help="Inputs of a familiar stream.")
    parser.add_argument("--mnist", action="store_true", help="Measure on MNIST and Fashion-MNIST too.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started = time.process_time()
    result = {
        "schema": 1,
        "what": "alarms of the drift monitor; stops where the promise is broken",
        "command": " ".join(["python", "benchmarks/drift.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": hardware(),
        "versions": versions("scipy", "river"),
        "methods": METHODS,
        "calibration": CALIBRATION,
        "threshold": THRESHOLD,
        "length": arguments.length,
        "familiar": familiar(arguments.streams, arguments.length),
        "changes": changes(arguments.streams // 5),
        "cost": cost(),
    }
    if arguments.mnist:
        result["mnist"] = mnist(arguments.streams)
    result["processor_s"] = round(time.process_time() - started)
    check(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
