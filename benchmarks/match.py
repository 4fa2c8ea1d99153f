"""Queries a processor second: the slot index against FAISS flat and torch brute force.

    python benchmarks/match.py --data-dir FOLDER --threads 2 --output benchmarks/results/match.json

FOLDER (or SLOTS_DATA_DIR) holds mnist.npz and fashion_mnist.npz. Slots of ``"pixels"`` are training images of both sets
(100,000 of the 120,000): the centre is the image, the weight the image less 0.15 of another one. A precision threshold
is the largest score of any of ``--rivals`` training images of another class; a support threshold is the cosine to the
second nearest of them that has the same class, less 0.02. Queries are test images of both sets. ``d = 64`` is a random
projection of the pixels. Slots of ``"random"`` are Gaussian directions, thresholds uniform between 0.5 and 0.9; queries
are slots with noise, at cosines uniform between 0.3 and 1.

What is timed: the pairs (query, slot) that match by the exact rule of two caps (``matching_pairs``, ``best_pairs``),
against peers that answer less: FAISS ``IndexFlatIP`` gives the nearest weight (``search``, k = 1), or all weights above
one radius (``range_search``, the radius that as many pairs pass as match); torch makes the product with the weights and
takes its maximum. ``index.predict`` and ``model.predict`` give whole answers (slot, margin, runner-up, and the pooled
score of what nothing matches), the latter through the index that the model keeps (built before, ``build_s``);
``decide`` gives the same without an index. Seconds are the process's processor seconds, which a busy machine disturbs
least; with one thread they are what a clock shows on an idle one. Methods take turns, ``--repeats`` times; the median
counts. Each row says whether the index's pairs, and its and the model's answers, are those of ``slots.head.decision``.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import torch

from protocols.provenance import commit, processor
from slots.features.preprocessing import Preprocessing
from slots.head.caps import SlotCaps
from slots.head.decision import decide, matching_pairs
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.index.slot_index import SlotIndex
from slots.model.slot_model import SlotModel


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    rows = []
    for kind in arguments.kinds:
        for feature_dim in arguments.features:
            made = MAKERS[kind](feature_dim, max(arguments.sizes), arguments)
            for size in arguments.sizes:
                row = measure(*taken(made, size), arguments)
                rows.append({"slots_are": kind, "features": feature_dim, "slots": size} | row)
                show(rows[-1])
    document = {
        "schema": 1,
        "what": "queries a processor second: exact matching, FAISS flat, torch brute force",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "command": " ".join(["python", "benchmarks/match.py", *public(sys.argv[1:])]),
        "commit": COMMIT,
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": [round(value, 2) for value in LOAD],
            "load_after": [round(value, 2) for value in os.getloadavg()],
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numpy", "numba", "faiss-cpu")},
        "rows": rows,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--kinds", nargs="+", default=["pixels", "random"], choices=list(MAKERS))
    parser.add_argument("--features", nargs="+", type=int, default=[64, 784])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--rivals", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--exact", type=int, default=512, help="queries compared with the exact rule")
    parser.add_argument("--products", type=float, default=4e11, help="most multiplications of a brute force call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("--data-dir or SLOTS_DATA_DIR is needed")
    return arguments


def images(folder, part):
    """Pixels and classes of both sets, 20 classes together."""
    x, y = [], []
    for offset, name in ((0, "mnist"), (10, "fashion_mnist")):
        with np.load(Path(folder) / f"{name}.npz") as data:
            x.append(data[f"x_{part}"].reshape(-1, 784).astype(np.float32) / 255)
            y.append(data[f"y_{part}"].astype(np.int64) + offset)
    return torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y))


def pixel_slots(feature_dim, n_slots, arguments):
    """Slots that are training images, and test images as queries."""
    rng = np.random.default_rng(arguments.seed)
    (x, y), (queries, _) = images(arguments.data_dir, "train"), images(arguments.data_dir, "test")
    if feature_dim < 784:
        projection = torch.from_numpy(rng.normal(size=(784, feature_dim))).float()
        x, queries = x @ projection, queries @ projection
    order = torch.from_numpy(rng.permutation(len(x)))
    chosen, others = order[:n_slots], torch.from_numpy(rng.permutation(len(x))[: arguments.rivals])
    centres, labels, rivals, rival_labels = normalize(x[chosen]), y[chosen], normalize(x[others]), y[others]
    weights = normalize(centres - 0.15 * centres.roll(1, 0))
    precision, support = [], []
    for part in torch.arange(n_slots).split(2048):
        own = labels[part][:, None] == rival_labels
        precision.append((weights[part] @ rivals.T).masked_fill(own, -1).amax(1))
        support.append((centres[part] @ rivals.T).masked_fill(~own, -1).topk(2).values[:, 1] - 0.02)
    caps = slots_of(weights, centres, torch.cat(precision), torch.cat(support), labels)
    picked = torch.from_numpy(rng.permutation(len(queries))[: arguments.queries])
    return caps, queries[picked]


def random_slots(feature_dim, n_slots, arguments):
    """Slots in random directions, and slots with noise as queries."""
    rng = np.random.default_rng(arguments.seed)
    draw = lambda *shape: torch.from_numpy(rng.normal(size=shape).astype(np.float32))  # noqa: E731
    weights = normalize(draw(n_slots, feature_dim))
    centres = normalize(weights + 0.3 * normalize(draw(n_slots, feature_dim)))
    precision, support = (torch.from_numpy(rng.uniform(0.5, 0.9, n_slots).astype(np.float32)) for _ in range(2))
    caps = slots_of(weights, centres, precision, support, torch.from_numpy(rng.integers(0, 20, n_slots)))
    # the queries stand near the first slots, which every size has
    near = weights[torch.from_numpy(rng.integers(0, min(arguments.sizes), arguments.queries))]
    cosine = torch.from_numpy(rng.uniform(0.3, 1, (arguments.queries, 1)).astype(np.float32))
    return caps, cosine * near + (1 - cosine.square()).sqrt() * normalize(draw(arguments.queries, feature_dim))


MAKERS = {"pixels": pixel_slots, "random": random_slots}


def slots_of(weights, centres, precision, support, labels):
    """Caps of one generation."""
    return SlotCaps(
        weights=weights,
        centres=centres,
        precision=precision,
        support=support,
        labels=labels,
        generations=torch.zeros_like(labels),
        pooled=torch.ones(len(labels), dtype=torch.bool),
        beta=20.0,
    )


def taken(made, size):
    """The first slots of a larger head, and the queries."""
    caps, queries = made
    return SlotCaps(
        **{k: v[:size].clone() if isinstance(v, torch.Tensor) else v for k, v in vars(caps).items()}
    ), queries


def measure(caps, queries, arguments):
    """One size of one head."""
    model, inputs = model_of(caps), queries.numpy()
    caps = model.head.caps()
    unit = normalize(queries)
    weights, features = caps.weights, queries[:, None]
    few = max(64, min(len(queries), int(arguments.products / weights.numel() / 2)))
    started = time.perf_counter()
    index = SlotIndex(caps)
    build_s = time.perf_counter() - started
    flat = faiss.IndexFlatIP(weights.shape[1])
    flat.add(weights.numpy())
    pairs = index.matching_pairs(features)
    while model._kept_index.index is None:  # noqa: SLF001  (it is built once as much was asked as it costs)
        model.predict(inputs)
    scores = (unit[:64] @ weights.T).flatten().sort(descending=True).values
    radius = float(scores[min(len(scores) - 1, len(pairs[0]) * 64 // len(queries))])
    rows = unit.numpy()
    calls = {
        "slots matching_pairs": (len(queries), lambda: index.matching_pairs(features)),
        "slots best_pairs": (len(queries), lambda: index.best_pairs(features)),
        "slots index.predict": (len(queries), lambda: index.predict(features)),
        "slots model.predict": (len(queries), lambda: model.predict(inputs)),
        "slots decide": (few, lambda: decided(features[:few], caps)),
        "FAISS flat search, k = 1": (few, lambda: flat.search(rows[:few], 1)),
        "FAISS flat range_search": (few, lambda: flat.range_search(rows[:few], radius)),
        "torch product and max": (few, lambda: product_and_max(unit[:few], weights)),
    }
    if len(weights) <= 10_000:
        via_faiss = SlotIndex(caps, backend="faiss")
        calls["slots matching_pairs, FAISS proposes"] = (few, lambda: via_faiss.matching_pairs(features[:few]))
    seconds = {name: [] for name in calls}
    for _ in range(arguments.repeats):
        for name, (_, call) in calls.items():
            seconds[name].append(timed(call))
    exact = features[: arguments.exact]
    same = all(torch.equal(a, b) for a, b in zip(index.matching_pairs(exact), matching_pairs(exact, caps), strict=True))
    answered, ruled = index.predict(exact), decided(exact, caps)
    predicted = model.predict(inputs[: arguments.exact])
    return {
        "queries_a_second": {
            name: round(count / sorted(seconds[name])[arguments.repeats // 2], 1) for name, (count, _) in calls.items()
        },
        "one_query_ms": {
            "slots matching_pairs": alone(lambda: index.matching_pairs(features[:1])),
            "FAISS flat search, k = 1": alone(lambda: flat.search(rows[:1], 1)),
        },
        "pairs_a_query": round(len(pairs[0]) / len(queries), 3),
        "share_matched": round(len(pairs[0].unique()) / len(queries), 4),
        "pairs_as_exact_rule": same,
        "answers_as_exact_rule": all(
            np.array_equal(getattr(found, name), getattr(ruled, name))
            for found in (answered, predicted)
            for name in vars(ruled)
        ),
        "unmatched": round(float((~index.predict(features).matched).mean()), 4),
        "dimensions_of_bound": index.bound_dimensions,
        "build_s": round(build_s, 3),
    }


def model_of(caps):
    """A model of feature rows with these slots."""
    head = IncrementalNeuralHashing(caps.weights.shape[1], beta=caps.beta)
    head.add_slots(
        caps.weights,
        caps.labels,
        centres=caps.centres,
        precision_thresholds=caps.precision,
        support_thresholds=caps.support,
    )
    return SlotModel(Preprocessing("features", (caps.weights.shape[1],)), head)


def decided(features, caps):
    """The exact rule without an index, in the blocks that a model takes."""
    step = max(1, (1 << 24) // max(4 * caps.weights.shape[1], len(caps.labels)))
    return Prediction.concatenate([decide(features[i : i + step], caps) for i in range(0, len(features), step)])


def product_and_max(unit, weights):
    """Scores and their maximum, in blocks that keep the matrix under 64 MB."""
    step = max(1, (1 << 24) // len(weights))
    return [(unit[i : i + step] @ weights.T).max(1) for i in range(0, len(unit), step)]


def alone(call, repeats=15):
    """Median milliseconds of one call."""
    return round(1000 * sorted(timed(call) for _ in range(repeats))[repeats // 2], 3)


def timed(call):
    """Processor seconds of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def show(row):
    """Print a row."""
    print(
        f"{row['slots_are']:7} d={row['features']:<4} {row['slots']:>7} slots  {row['pairs_a_query']} pairs a query, "
        f"{row['share_matched']:.1%} matched, bound {row['dimensions_of_bound']}, build {row['build_s']} s, "
        f"same pairs {row['pairs_as_exact_rule']}, same answers {row['answers_as_exact_rule']}"
    )
    for name, value in row["queries_a_second"].items():
        print(f"    {name:40} {value:12,.0f} queries/s")
    print(f"    one query: {row['one_query_ms']} ms", flush=True)


def public(options):
    """Options without the machine's folders."""
    return [
        "FOLDER" if before == "--data-dir" else option for before, option in zip(["", *options], options, strict=False)
    ]


COMMIT, LOAD = commit(), os.getloadavg()  # before anything runs: others may commit meanwhile

if __name__ == "__main__":
    main()
