"""Where a measurement of `gpu.py` runs, on what, and how it is timed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where the measurements run and on what."""

    device: str
    data: Path
    tiny: bool
    started: float
    deadline: float
    save: Path | None

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], Any], *, warm: int = 1, repeats: int = 5) -> tuple[float, Any]:
        """Median milliseconds of a call, and what it returned last."""
        result, found = None, []
        for _ in range(warm):
            result = call()
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            result = call()
            self.wait()
            found.append(1e3 * (time.perf_counter() - start))
        return round(float(np.median(found)), 3), result

    def peak(self, call: Callable[[], Any]) -> tuple[float | None, Any]:
        """Largest GiB of device memory during a call, and what it returned."""
        if not self.device.startswith("cuda"):
            return None, call()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        self.wait()
        return round(torch.cuda.max_memory_allocated() / 2**30, 2), result

    def images(self, name: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (0 to 1) and labels of ``n`` training images, in a seeded order."""
        with np.load(self.data / f"{name}.npz") as archive:
            x, y = archive["x_train"], archive["y_train"]
        order = np.random.default_rng(0).permutation(len(x))[:n]
        pixels = torch.from_numpy(x[order].reshape(len(order), -1).astype(np.float32) / 255)
        return pixels, torch.from_numpy(y[order].astype(np.int64))


def unfused(call: Callable[[], Any]) -> Any:
    """What a call returns without the fused kernels."""
    os.environ["SLOTS_FUSED"] = "0"
    try:
        return call()
    finally:
        del os.environ["SLOTS_FUSED"]


def or_error(call: Callable[[], Any]) -> Any:
    """What a call returns, or what it died of."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return repr(error)[:200]
