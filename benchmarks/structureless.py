"""How well the pieces of a cloud without groups are apart, by its dimension: the silhouette that is no evidence.

    python benchmarks/structureless.py [--rows 3000] [--seed 0]

Prints one line a dimension: the mean silhouette (`slots.graph.levels.silhouette`) of the pieces that k-means cuts a
Gaussian and an even cloud into, for 2, 5, 20 and 100 pieces; the curve near them; what the evidence takes off; and the
estimate of the dimension from 20 neighbours. Clouds lie on a plane that touches the sphere from afar, so that cosines
are distances.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.cluster import KMeans

from slots.clustering.neighbours import nearest_neighbours
from slots.estimators.projection import SphereProjection
from slots.graph.dimension import intrinsic_dimension, silhouette_without_groups
from slots.graph.levels import silhouette

DIMENSIONS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 60)
PIECES = (2, 5, 20, 100)
_FAR = 20.0


def silhouettes(dimension: int, *, even: bool, rows: int, seed: int) -> tuple[list[float], float]:
    """Silhouettes of the pieces of one cloud, and its estimated dimension."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, dimension)) if even else rng.normal(size=(rows, dimension))
    unit = torch.from_numpy(SphereProjection.of(x, scaling="common", height=_FAR)(x)).double()
    pieces = [KMeans(k, n_init=1, random_state=seed).fit_predict(x).astype(np.int64) for k in PIECES]
    found = [silhouette(unit, it) for it in pieces]
    return found, intrinsic_dimension(unit, nearest_neighbours(unit, 20))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("dimension  Gaussian: 2, 5, 20, 100 pieces   even: the same            3.1/(d+3)  taken off  estimates")
    for dimension in DIMENSIONS:
        (gaussian, first), (even, second) = (
            silhouettes(dimension, even=it, rows=asked.rows, seed=asked.seed) for it in (False, True)
        )
        figures = "   ".join("  ".join(f"{it:.2f}" for it in found) for found in (gaussian, even))
        curve = f"{3.1 / (dimension + 3):9.2f}  {silhouette_without_groups(dimension):9.2f}"
        print(f"{dimension:9}  {figures:>48}  {curve}  {first:.1f}, {second:.1f}")


if __name__ == "__main__":
    main()
