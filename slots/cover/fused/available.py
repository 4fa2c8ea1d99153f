"""Whether the fused kernels can run; importing this loads no Triton."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch


def has_fused_kernels(device: torch.device) -> bool:
    """Whether there are fused kernels for a device: an NVIDIA GPU from Ampere on, and Triton.

    ``SLOTS_FUSED=0`` in the environment says no; the results are the same.

    Parameters
    ----------
    device : torch.device
        Where the features lie.

    Returns
    -------
    bool
    """
    if device.type != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
        return False
    if os.environ.get("SLOTS_FUSED") == "0":
        return False
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)
