"""Where a figure comes from: versions, machine, commit and command line, as they stand in every result file."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of what decides a result, and of further distributions that took part.

    Parameters
    ----------
    *more : str
        Names of distributions.

    Returns
    -------
    dict
        Name to version; ``"not installed"`` where it is missing.
    """
    names = ("neural-slots", "torch", "numpy", "scikit-learn", "numba", *more)
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores that may be used, torch's threads, and the GPU where one is used.

    Parameters
    ----------
    device : str, default "cpu"
        Name of the torch device that is used; a CUDA device is named by its product.

    Returns
    -------
    dict
        ``processor, system, cores, threads, gpu``; the last None on a CPU.
    """
    import torch

    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}"
    return {"processor": processor(), "system": system, "cores": cores, "threads": torch.get_num_threads(), "gpu": gpu}


def commit() -> str | None:
    """Short name of the commit the code was run from, ``+`` behind it where files had changed; None outside git."""
    here = Path(__file__).parent
    found = _git(here, "rev-parse", "--short", "HEAD")
    if not found or _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed inside somebody else's repository
    return found + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no", "..") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git or it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def code_digest() -> str:
    """Digest of the packages' source files as they are first asked for: equal digests mean that equal code ran."""
    import backbones
    import protocols
    import slots

    sha = hashlib.sha256()
    for package in (slots, backbones, protocols):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            sha.update(f"\n{root.name}/{path.relative_to(root)}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["slots", *sys.argv[1:]])
