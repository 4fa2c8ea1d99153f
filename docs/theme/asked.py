"""Print what the site's build needs, a name a line: the extra `docs`, and what reads the commands' help.

Versions are left to the constraints, of which pip takes the digests too.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ALSO = ("typer", "rich", "ruff")  # ruff sets the signatures


def main() -> None:
    """Take the names from `pyproject.toml`."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["optional-dependencies"]["docs"], *ALSO]
    sys.stdout.write("".join(f"{re.split('[<>=]', it)[0]}\n" for it in asked))


if __name__ == "__main__":
    main()
