"""Slots learned without labels on MNIST: purity and NMI against spherical k-means (FAISS) with the same number.

    pip install faiss-cpu
    python benchmarks/clustering.py --data-dir FOLDER --output benchmarks/results/clustering.json

The first 30,000 training images, batches of 1,000, 4 epochs. K-means: 20 rounds on all of them, one start.
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
from sklearn.metrics import normalized_mutual_info_score

from protocols.data.loading import load_data
from protocols.provenance import commit
from slots.clustering.competitive import learn_slots
from slots.clustering.slot_clusters import ClusterConfig
from slots.head.similarities import normalize


def judged(owners, labels):
    """Purity and normalised mutual information."""
    table = np.zeros((owners.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (owners, labels), 1)
    purity = table.max(1).sum() / len(labels)
    return {"purity": round(float(purity), 4), "nmi": round(float(normalized_mutual_info_score(labels, owners)), 4)}


def spherical_kmeans(x, k, seed):
    """Cluster of each row."""
    found = faiss.Kmeans(x.shape[1], k, niter=20, spherical=True, seed=seed + 1, max_points_per_centroid=len(x))
    found.train(x)
    return found.index.search(x, 1)[1][:, 0]


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    data = load_data("mnist", data_dir=arguments.data_dir)
    x = torch.from_numpy(data.x_train[:30_000].reshape(30_000, -1)).float() / 255
    y = data.y_train[:30_000].astype(np.int64)
    rows = []
    for share, normalized in [(0.01, False), (0.03, False), (0.03, True)]:
        for seed in arguments.seeds:
            started = time.perf_counter()
            found = learn_slots(x, ClusterConfig(share=share, normalized=normalized, seed=seed))
            elapsed = time.perf_counter() - started
            cosines = found.weights @ found.weights.T - 2 * torch.eye(found.n_slots)
            row = {"share": share, "normalized": normalized, "seed": seed, "slots": found.n_slots}
            row |= judged(found.owners.numpy(), y)
            row |= {"nearest_cosine": round(float(cosines.amax(1).mean()), 3), "elapsed_s": round(elapsed, 1)}
            if not normalized:
                owners = spherical_kmeans(normalize(x).numpy(), found.n_slots, seed)
                row["k_means"] = judged(owners, y)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.output:
        document = {
            "data": data.name,
            "data_digest": data.digest,
            "command": " ".join(["python benchmarks/clustering.py --seeds", *map(str, arguments.seeds)]),
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "threads": 1,
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "faiss": faiss.__version__},
            "commit": commit(),
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
