"""Slots by the largest entry of a difference: what is right, and what no change of a pixel can change.

Usage::

    python benchmarks/linf_distance.py --data mnist --slots-per-class 128 --epochs 14
"""

from __future__ import annotations

import argparse
import time

from protocols.data.loading import load_data
from slots.robust import LinfDistanceConfig, fit_linf_distance


def main():
    """Fit, certify the test images, and say it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--slots-per-class", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--radius", type=float, default=0.3)
    parser.add_argument("--rate", type=float, default=0.006)
    parser.add_argument("--augment", default="shift1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = load_data(arguments.data, data_dir=arguments.data_dir)
    config = LinfDistanceConfig(
        radius=arguments.radius,
        slots_per_class=arguments.slots_per_class,
        epochs=arguments.epochs,
        rate=arguments.rate,
        augment=arguments.augment,
        seed=arguments.seed,
    )
    started = time.process_time()
    slots = fit_linf_distance(
        data.x_train, data.y_train, config=config, progress=lambda text, _: print(text, flush=True)
    )
    fitted = time.process_time()
    found = slots.certify(data.x_test)
    right = found.labels == data.y_test
    seconds = f"fitted in {fitted - started:.0f} s, certified in {time.process_time() - fitted:.0f} s"
    print(f"{len(slots.labels):,} slots: {seconds}")
    for size in (0.0, 0.05, 0.1, 0.2, 0.3):
        print(f"right and certified at {size:g}: {(right & (found.radii > size)).mean():.2%}")


if __name__ == "__main__":
    main()
