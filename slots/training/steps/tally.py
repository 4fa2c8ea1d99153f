"""The mean loss of an epoch as it goes on."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

_SECONDS_BETWEEN_LOOKS = 0.25


class Tally:
    """Mean loss so far. A GPU is asked for it now and then only: asking waits until it has caught up.

    Parameters
    ----------
    device : torch.device
        Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self._seen = 0
        self._every = 0.0 if device.type == "cpu" else _SECONDS_BETWEEN_LOOKS
        self._last = -math.inf

    def add(self, loss: Tensor, count: int) -> None:
        """Take in the mean loss of a batch."""
        self._total += loss.double() * count
        self._seen += count

    def is_due(self) -> bool:
        """Whether it is time for a look."""
        return time.monotonic() - self._last >= self._every

    def mean(self) -> float:
        """Look."""
        self._last = time.monotonic()
        return float(self._total) / max(1, self._seen)
