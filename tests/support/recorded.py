"""What a long attack found, with what it was made with, as the file that is kept."""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

from protocols.provenance import commit, processor


def made_with(script, seed, packages):
    """Seed, command, commit, machine and versions."""
    return {
        "seed": seed,
        "command": " ".join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }


def keep(found, output):
    """Write it where it is to be kept; None for nowhere."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n")
