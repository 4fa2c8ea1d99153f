"""Are the lowest versions that pyproject.toml states the ones that get tested? `make test-minimum` asks this first.

The argument is the set that a resolver made of them. A stated version that no set can hold was never true.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def stated(project: str) -> dict[str, Version]:
    """The lowest version of each requirement that states one."""
    table = tomllib.loads(project)["project"]
    lines = [*table["dependencies"], *(line for extra in table["optional-dependencies"].values() for line in extra)]
    lowest = {}
    for need in map(Requirement, lines):
        (bound,) = [it.version for it in need.specifier if it.operator == ">="]
        lowest[canonicalize_name(need.name)] = Version(bound)
    return lowest


def untested(project: str, resolved: str) -> list[str]:
    """Requirements whose lowest version is not the one in the set."""
    pins = [line.split(";")[0].split() for line in resolved.splitlines() if "==" in line.split("#")[0]]
    there = {canonicalize_name(pin[0].split("==")[0]): Version(pin[0].split("==")[1]) for pin in pins}
    return [
        f"pyproject.toml states {name}>={low}, and the lowest set that goes together has {there[name]}: state that."
        for name, low in sorted(stated(project).items())
        if name in there and there[name] != low
    ]


if __name__ == "__main__":
    problems = untested((ROOT / "pyproject.toml").read_text(), Path(sys.argv[1]).read_text())
    raise SystemExit("\n".join(problems) or 0)
