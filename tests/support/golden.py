"""Writes the golden model folder of the release in hand, for every later version to open.

    PYTHONPATH=. python tests/support/golden.py tests/fixtures/releases/VERSION

Run it once, when a version is about to be released. The folder holds two generations: a fit with whitening, a constant
feature, remembered examples and ids of the caller's own, then an update that learned a class. `answers.npz` beside it
holds what the release said of rows that it had not seen. Neither is ever written again.
"""

import sys
from pathlib import Path

import numpy as np

from slots import ClosingConfig, TrainConfig, fit

CENTRES = np.random.default_rng(1).normal(0, 1.5, (4, 6))


def drawn(n, seed, classes):
    """Rows around the first centres, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (CENTRES[labels] + rng.normal(0, 0.5, (n, 6))).astype(np.float32), labels


def told(model, x):
    """All that a model says of rows, as arrays by name."""
    found = model.examine(x)
    said = {"answer": found.prediction, "novelty": found.novelty}
    return {f"{kind}_{name}": np.asarray(value) for kind, it in said.items() for name, value in vars(it).items()}


def write(folder):
    """The model folder and its answers."""
    x, y = drawn(300, 0, classes=3)
    closing = ClosingConfig(reach=0.8)
    config = TrainConfig(
        epochs=5, slots_per_class=2, whitening=0.5, whitening_by="correlation", lift=1.0, held_out=0.2, closing=closing
    )
    names, asked = ("red", "green", "blue", "white"), drawn(60, 1, classes=4)[0]
    model, _ = fit(x, y, config=config, class_names=names[:3], ids=[f"row {i}" for i in range(len(x))])
    model.save(folder / "model")
    first = told(model, asked)
    new, labels = drawn(200, 2, classes=4)
    proposal = model.propose(new, budget=8)
    model.update(new, {int(i): names[labels[i]] for i in proposal.queries}, proposal=proposal)
    model.save(folder / "model", keep_history=True)
    both = {"first": first, "last": told(model, asked)}
    flat = {f"{when}_{name}": value for when, said in both.items() for name, value in said.items()}
    np.savez_compressed(folder / "answers.npz", x=asked, **flat)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True)  # what a release wrote is not written again
    write(out)
