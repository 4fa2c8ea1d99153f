"""That all processes of a fit hold the same: what they were given before it, and what they made after it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from slots.distributed import Ranks
from slots.errors import UsageError
from slots.model.slot_model import SlotModel
from slots.shapes import Ids, RawInputs
from slots.training.backbone_hooks import learns

_BLOCK = 1 << 12  # rows read at once


def check_alike(x: RawInputs, labels: Ids, settings: Any, backbone: nn.Module | None, ranks: Ranks) -> None:
    """Raise a `UsageError` where processes were given different things, or something that they cannot share.

    Parameters
    ----------
    x : array of shape (example, ...)
        Raw inputs.
    labels : int64 array of shape (example,)
        Labels.
    settings : object
        What has a text that says all of it, such as a dataclass.
    backbone : nn.Module or None
        From inputs to features; none of its parameters may learn.
    ranks : Ranks
        The processes; nothing is looked at where there is one.
    """
    if ranks.size == 1:
        return
    if backbone is not None and learns(backbone):
        raise UsageError(
            f"`backbone` must not learn in a fit of {ranks.size} processes, and some of its parameters ask for "
            "gradients. Freeze it, or fit in one process."
        )
    said = re.sub(r"device='[^']*'", "", repr(settings))  # each process may have a GPU of its own
    found = hashlib.sha256(f"{np.shape(x)} {said} {torch.__version__} {torch.get_num_threads()}".encode())
    found.update(torch.backends.cpu.get_cpu_capability().encode())
    found.update(labels.tobytes())
    for i in range(0, len(x), _BLOCK):
        part = x[i : i + _BLOCK]
        rows = part.numpy(force=True) if isinstance(part, torch.Tensor) else np.asarray(part)
        found.update("\n".join(map(str, rows)).encode() if rows.dtype.kind in "OUST" else rows.tobytes())
    for name, value in {} if backbone is None else backbone.state_dict().items():
        found.update(name.encode() + value.numpy(force=True).tobytes())
    ranks.check_same(found.hexdigest(), "data, options and backbone")


def check_models(model: SlotModel, ranks: Ranks) -> None:
    """Raise a `UsageError` where processes have made slots of different bits.

    Parameters
    ----------
    model : SlotModel
        What this process made.
    ranks : Ranks
        The processes.
    """
    found = hashlib.sha256()
    for name, value in sorted(model.head.state_dict().items()) if ranks.size > 1 else ():
        found.update(name.encode() + value.numpy(force=True).tobytes())
    ranks.check_same(found.hexdigest(), "model")
