"""Products in full float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(x: Tensor) -> Iterator[Tensor]:
    """Within the block autocast is off; the yielded tensor is ``x`` in float32 if it was of half precision."""
    wide = x.float() if x.dtype in {torch.float16, torch.bfloat16} else x
    if x.device.type == "meta":
        yield wide
    else:
        with torch.autocast(x.device.type, enabled=False):
            yield wide
