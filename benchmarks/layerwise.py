"""Features learned without labels on CIFAR-10: layers of slots against k-means features of the same size.

    pip install faiss-cpu
    python benchmarks/layerwise.py --data-dir FOLDER --output benchmarks/results/layerwise.json

One pipeline for all rows, that of Coates, Lee and Ng ("An analysis of single-layer networks in unsupervised feature
learning", 2011): 6 x 6 patches, contrast normalised (variance + 10), ZCA whitened (0.1), responses with the triangle
encoding, averaged over quadrants: 4 features a dictionary element. On standardised features a linear head: ridge
regression on one-hot targets, its strength chosen on the last 10,000 training images for each row by itself, then
fitted again on all of them. K-means by FAISS, 30 rounds, on the very patches that the slots learn from.

Rows: ``k-means``, the recipe; ``slots``, the same with slots (cosine, scores standardised) instead; ``slots, 2
layers``: half of the slots below, half on 2 x 2 patches of the whitened, 2 x 2 average-pooled responses of the first,
features of both; ``k-means, 2 layers``: the same stack with k-means in both. ``size`` is what was asked for,
``elements`` what was found: slots that win too little are dropped.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import nn

from protocols.data.loading import load_data
from protocols.provenance import commit
from slots.clustering.slot_clusters import ClusterConfig, SlotClusters
from slots.layers.layerwise import PooledFeatures, fit_layers
from slots.layers.slot_conv import SlotConv2d
from slots.layers.whitening import PatchWhitening

STRENGTHS = tuple(10.0**power for power in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))  # times the number of images
HELD_OUT = 10_000


class KMeansConv2d(SlotConv2d):
    """The same layer with centres of k-means, and their distances as Coates, Lee and Ng encode them."""

    def __init__(self, size, seed):
        super().__init__(1, config=ClusterConfig(metric="l2"), encoding="triangle")
        self.size, self.seed = size, seed

    def learn(self, patches):
        """Plain k-means."""
        found = faiss.Kmeans(
            patches.shape[1], self.size, niter=30, seed=self.seed + 1, max_points_per_centroid=len(patches)
        )
        found.train(np.ascontiguousarray(patches.numpy()))
        none = torch.zeros(self.size)
        owners = torch.zeros(0, dtype=torch.long)
        centres = torch.from_numpy(found.centroids.copy())
        self.take(SlotClusters(centres, none, none.long(), none, none + 1, owners, (), "l2", normalized=False))


def slot_layer(size, seed):
    """A layer of slots: each may match four times its even share of the patches, so that there are enough of them."""
    config = ClusterConfig(share=min(0.05, 4 / size), batch_size=2000, max_slots=size, seed=seed)
    return SlotConv2d(1, config=config, encoding="triangle", normalized=True)


def stack(method, size, seed, stride):
    """Layers of a row, not learned yet."""
    layer = KMeansConv2d if method.startswith("k-means") else slot_layer
    first = PatchWhitening(6, stride=stride)
    if "2 layers" not in method:
        return [first, layer(size, seed)]
    second = PatchWhitening(2, contrast=None, smoothing=1.0, relative=True)
    pool = nn.AvgPool2d(2 * 2 // stride)  # the same area in the image whatever the stride
    return [first, layer(size // 2, seed), pool, second, layer(size - size // 2, seed)]


@torch.no_grad()
def features(model, images, batch=250):
    """Features of all images."""
    return torch.cat([model(images[i : i + batch]) for i in range(0, len(images), batch)])


def linear_head(x, y, x_test, y_test):
    """Ridge regression: test and validation accuracy, and the strength chosen."""
    fitted = len(x) - HELD_OUT
    mean, deviation = x[:fitted].mean(0), x[:fitted].std(0) + 1e-6
    x, x_test = ((rows - mean) / deviation for rows in (x, x_test))
    targets = 2 * torch.nn.functional.one_hot(y, 10).float() - 1

    def moments(rows, wanted):
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)  # the last coefficient is the offset
        return (rows.T @ rows).double(), (rows.T @ wanted).double()

    def solve(gram, right, strength, n):
        ridge = torch.full((len(gram),), strength * n, dtype=torch.float64)
        ridge[-1] = 1e-6
        return torch.cholesky_solve(right, torch.linalg.cholesky(gram + torch.diag(ridge))).float()

    def accuracy(weights, rows, labels):
        return float(((rows @ weights[:-1] + weights[-1]).argmax(1) == labels).double().mean())

    gram, right = moments(x[:fitted], targets[:fitted])
    tried = [accuracy(solve(gram, right, s, fitted), x[fitted:], y[fitted:]) for s in STRENGTHS]
    best = int(np.argmax(tried))
    more = moments(x[fitted:], targets[fitted:])
    weights = solve(gram + more[0], right + more[1], STRENGTHS[best], len(x))
    return {
        "test_accuracy": round(accuracy(weights, x_test, y_test), 5),
        "validation_accuracy": round(tried[best], 5),
        "ridge": STRENGTHS[best],
    }


def measure(method, size, seed, data, arguments):
    """One row."""
    started = time.perf_counter()
    images, y, test_images, y_test = data
    layers = fit_layers(images, stack(method, size, seed, arguments.stride), n_patches=arguments.patches, seed=seed)
    learned = time.perf_counter()
    model = PooledFeatures(layers)
    x, x_test = features(model, images), features(model, test_images)
    computed = time.perf_counter()
    row = {"method": method, "size": size, "seed": seed, "elements": x.shape[1] // 4}
    row |= linear_head(x, y, x_test, y_test)
    times = {"learn_s": learned - started, "features_s": computed - learned, "head_s": time.perf_counter() - computed}
    return row | {name: round(seconds, 1) for name, seconds in times.items()}


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=["k-means", "slots, 2 layers", "slots", "k-means, 2 layers"])
    parser.add_argument("--stride", type=int, default=2, choices=(1, 2))
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--train", type=int, default=50_000, help="training images, the first ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    loaded = load_data("cifar10", data_dir=arguments.data_dir)
    data = (
        torch.from_numpy(loaded.x_train[: arguments.train]).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(loaded.y_train[: arguments.train].astype(np.int64)),
        torch.from_numpy(loaded.x_test).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(loaded.y_test.astype(np.int64)),
    )
    rows = []
    for size in arguments.sizes:
        for method in arguments.methods:
            for seed in arguments.seeds:
                rows.append(measure(method, size, seed, data, arguments))
                print(json.dumps(rows[-1]), flush=True)
                save(arguments, loaded, rows)


def save(arguments, loaded, rows):
    """Write what was measured so far; rows of the same method, size and seed are replaced, others stay."""
    if arguments.output is None:
        return
    fresh = {(row["method"], row["size"], row["seed"]) for row in rows}
    before = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    kept = [row for row in before if (row["method"], row["size"], row["seed"]) not in fresh]
    processor = [s.split(":")[1].strip() for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
    document = {
        "data": loaded.name,
        "data_digest": loaded.digest,
        "command": f"python benchmarks/layerwise.py --data-dir FOLDER --train {arguments.train} --output FILE",
        "settings": {"stride": arguments.stride, "patches": arguments.patches, "train": arguments.train},
        "machine": {"processor": processor[0] if processor else platform.machine(), "cores": os.cpu_count()},
        "threads": arguments.threads,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "numpy": np.__version__,
        },
        "commit": commit(),
        "rows": kept + rows,
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
