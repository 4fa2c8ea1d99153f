"""Whether the fused kernels can run; importing this loads no Triton."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch


def has_fused_kernels(device: torch.device) -> bool:
    """Whether there are fused kernels for a device.

    That takes an NVIDIA GPU from Ampere on, Triton, and a C compiler for the few lines with which Triton starts a
    kernel. ``SLOTS_FUSED=0`` in the environment says no; the results are the same.

    Parameters
    ----------
    device : torch.device
        Where the examples lie.

    Returns
    -------
    bool
    """
    if device.type != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
        return False
    if os.environ.get("SLOTS_FUSED") == "0" or find_spec("triton") is None:
        return False
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    return compiler is not None and torch.cuda.get_device_capability(device) >= (8, 0)
