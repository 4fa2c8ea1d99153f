"""Is what is installed what we said? `make audit` asks this here, and asks a public database for known weaknesses.

Without a network it finds: pins without digests, packages without a pin or at another version, needs that are not met,
licences that nobody named, copyleft in what a user runs, and files that are not as their wheel recorded them.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from packaging.utils import canonicalize_name
from support.installed import OURS, damaged, installed, licence, needs, scopes, version
from support.pins import CONSTRAINTS, HASHES, differences, read_hashes, read_pins

COPYLEFT = ("GPL", "General Public License")  # LGPL too: nothing that a user runs has it today


def unpinned(found: Mapping[str, Distribution], pins: Mapping[str, str]) -> list[str]:
    """What is installed without a pin, or at another version than its pin."""
    others = {name: version(it) for name, it in found.items() if name != OURS}
    return [
        f"{name} {there} is installed, and {f'pinned at {pins[name]}' if name in pins else 'has no pin'}."
        for name, there in sorted(others.items())
        if pins.get(name) != there
    ]


def unmet(found: Mapping[str, Distribution]) -> list[str]:
    """What an installed package needs and does not find, or finds at a version that it does not allow."""
    problems = []
    for name, distribution in sorted(found.items()):
        for need in needs(distribution):
            there = found.get(canonicalize_name(need.name))
            if there is None:
                problems.append(f"{name} needs {need.name}, which is not installed.")
            elif not need.specifier.contains(version(there), prereleases=True):
                problems.append(f"{name} needs {need.name}{need.specifier}, and {version(there)} is installed.")
    return problems


def licences(found: Mapping[str, Distribution]) -> list[str]:
    """What has no licence in its metadata, and copyleft outside of tests and comparisons."""
    problems = []
    for name, scope in sorted(scopes(found).items()):
        named = licence(found[name])
        if named is None:
            problems.append(f"{name} names no licence. Read its pages, then name it in READ_BY_HAND.")
        elif scope != "excluded" and any(word in named for word in COPYLEFT):
            problems.append(f"{name} ({named}) may not be something that users need.")
    return problems


def changed(found: Mapping[str, Distribution]) -> list[str]:
    """Packages with files that are not as recorded."""
    return [
        f"{name}: {len(files)} files are missing or not as its wheel recorded them, first {files[0]}."
        for name, distribution in sorted(found.items())
        if (files := damaged(distribution))
    ]


def offline(folders: list[str]) -> list[str]:
    """Everything that can be found without a network, one sentence each."""
    pins = read_pins(CONSTRAINTS.read_text())
    found = installed(folders)
    return [
        *differences(pins, read_hashes(HASHES.read_text())),
        *unpinned(found, pins),
        *unmet(found),
        *licences(found),
        *changed(found),
    ]


def weaknesses(report: Mapping[str, Any], pins: Mapping[str, str]) -> list[str]:
    """What pip-audit's report says of the pins; that it says nothing of some of them is a problem, too."""
    seen = {canonicalize_name(it["name"]): it for it in report["dependencies"]}
    asked = {name for name, it in seen.items() if it.get("version") == pins.get(name) and "skip_reason" not in it}
    problems = []
    if silent := sorted(pins.keys() - asked):
        problems.append(
            f"The advisory database did not answer for {len(silent)} of {len(pins)} pins, so nothing is known of them "
            f"({silent[0]} is the first). Try again where it can be reached."
        )
    for name in sorted(asked):
        for it in seen[name]["vulns"]:
            mended = f"mended in {', '.join(it['fix_versions'])}" if it["fix_versions"] else "not mended in any version"
            problems.append(f"{name} {pins[name]} has the known weakness {it['id']}, {mended}.")
    return problems


def advisories(pip_audit: str) -> list[str]:
    """Ask the database about every pin."""
    pins = read_pins(CONSTRAINTS.read_text())
    command = [pip_audit, "-r", str(HASHES), "--disable-pip", "-f", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        reason = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        return [f"The advisory database could not be asked about {len(pins)} pins: {reason[0]}"]
    return weaknesses(report, pins)


def say(problems: list[str], otherwise: str) -> None:
    """A line for each, or one that says that there are none."""
    sys.stdout.write("\n".join(problems or [otherwise]) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print what is wrong, one line each, and exit with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--advisories", metavar="PIP_AUDIT", help="ask the public database, with this pip-audit")
    own = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    parser.add_argument("--site", action="append", metavar="FOLDER", help="site-packages to look at; default: our own")
    asked = parser.parse_args()
    problems = offline(asked.site or own)
    say(problems, "Installed as pinned, whole, and under known licences.")
    if asked.advisories:
        known = advisories(asked.advisories)
        say(known, "No known weakness in any pin.")
        problems += known
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
