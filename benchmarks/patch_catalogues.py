"""Catalogues of the patches that slots find in MNIST and CIFAR-10 without labels, as pictures.

    python benchmarks/patch_catalogues.py --data-dir FOLDER --output docs

Writes patches_mnist.png and patches_cifar10.png: the most used slots first, a bar for how many patches each won. MNIST:
9 x 9 patches, a slot may match 1 % of the patches; CIFAR-10: 8 x 8 patches, whitened, shown as the patch whose whitened
form a slot is; above with plain cosines, below with scores normalised over the batch.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from protocols.data.loading import load_data
from protocols.pages.pictures import png
from protocols.pages.slot_catalogue import catalogue
from slots.clustering.slot_clusters import ClusterConfig
from slots.layers.layerwise import fit_layers
from slots.layers.slot_conv import SlotConv2d
from slots.layers.whitening import PatchWhitening


def mnist(images, seed, *, normalized):
    """Slots on raw strokes; patches with next to no ink take no part."""
    config = ClusterConfig(share=0.01, min_deviation=25.0, normalized=normalized, max_slots=160, seed=seed)
    (layer,) = fit_layers(images, [SlotConv2d(9, config=config)], n_patches=60_000, patches_per_image=5, seed=seed)
    return layer.weights.detach().numpy(), layer.wins.numpy()


def cifar10(images, seed, *, normalized):
    """Slots on whitened patches, in the colours of the images."""
    config = ClusterConfig(share=0.01, normalized=normalized, batch_size=2000, max_slots=160, seed=seed)
    layers = [PatchWhitening(8), SlotConv2d(1, config=config)]
    white, slots = fit_layers(images, layers, n_patches=100_000, seed=seed)
    matrix, weights = white.matrix.flatten(1).double(), slots.weights.detach().flatten(1).double()
    pictures = torch.linalg.solve(matrix, weights.T).T
    return pictures.reshape(-1, 3, 8, 8).numpy(), slots.wins.numpy()


def main():
    """Learn, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, learn, zoom in [("mnist", mnist, 4), ("cifar10", cifar10, 4)]:
        x = torch.from_numpy(load_data(name, data_dir=arguments.data_dir).x_train)
        images = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
        parts = []
        for normalized in (False, True):
            templates, wins = learn(images, arguments.seed, normalized=normalized)
            form = "scores normalised" if normalized else "cosine"
            title = f"{name}, {form}: {len(wins)} slots without labels, by patches won ({wins.max()} to {wins.min()})"
            parts.append(catalogue(templates, wins, columns=20, zoom=zoom, title=title))
            print(name, form, templates.shape, wins.max(), wins.min())
        width = max(part.shape[1] for part in parts)
        padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in parts]
        (arguments.output / f"patches_{name}.png").write_bytes(png(np.concatenate(padded)))


if __name__ == "__main__":
    main()
