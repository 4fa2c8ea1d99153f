"""Run the examples, each in a folder of its own, and keep their pictures for the gallery."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "gallery"


def main() -> None:
    """Run all examples, or those that are named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    PICTURES.mkdir(exist_ok=True)
    for script in sorted((ROOT / "examples").glob("*.py")):
        if names and script.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, str(script)], cwd=folder, env=env, check=True)  # noqa: S603  # ours
            shutil.copyfile(Path(folder) / "runs" / "examples" / f"{script.stem}.png", PICTURES / f"{script.stem}.png")
        sys.stdout.write(f"{PICTURES / script.stem}.png\n")


if __name__ == "__main__":
    main()
