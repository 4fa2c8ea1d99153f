"""What constraints.txt pins, and what .github/hashes.txt has the digests of; as a command it compares or makes them.

`make hashes` runs it. The digests are of all files that the index publishes of a version, for every platform.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
HASHES = ROOT / ".github" / "hashes.txt"
TOOLS = ROOT / ".github" / "tools.in"
HEAD = """\
# The sha256 of every published file of each pin in constraints.txt, made by `make hashes`. To check what is installed:
#   pip install --require-hashes -c .github/hashes.txt ...
"""
HEAD_OF_TOOLS = "# tools.in with all that it needs, and the digests; made by `make hashes`.\n"


def read_pins(text: str) -> dict[str, str]:
    """Name, as packaging normalises it, and version of each line that pins."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pins = {}
    for line in lines:
        pin = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][A-Za-z0-9.]*)", line)
        if pin is None:
            raise ValueError(f"Expected NAME==VERSION and nothing else, got {line!r}. Mend that line.")
        name = canonicalize_name(pin[1])
        if name in pins:
            raise ValueError(f"{name} is pinned twice. Keep one of the two lines.")
        pins[name] = pin[2]
    return pins


def read_hashes(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Name, version and digests of each entry."""
    entries = {}
    for block in re.sub(r"\\\n\s*", "", text).splitlines():
        if not block or block.startswith("#"):
            continue
        pin, *words = block.split()
        ((name, version),) = read_pins(pin).items()
        digests = [re.fullmatch(r"--hash=sha256:([0-9a-f]{64})", word) for word in words]
        if not digests or None in digests:
            raise ValueError(f"Expected only sha256 digests of {name}, got {words}. Run `make hashes`.")
        if name in entries:
            raise ValueError(f"{name} has two entries. Run `make hashes`.")
        entries[name] = (version, frozenset(digest[1] for digest in digests if digest))
    return entries


def differences(pins: dict[str, str], hashes: dict[str, tuple[str, frozenset[str]]]) -> list[str]:
    """Where the two files do not name the same versions, one sentence each."""
    found = [f"{name}=={pins[name]} has no digests. Run `make hashes`." for name in sorted(pins.keys() - hashes.keys())]
    found += [f"{name} has digests and no pin. Run `make hashes`." for name in sorted(hashes.keys() - pins.keys())]
    for name in sorted(pins.keys() & hashes.keys()):
        if pins[name] != hashes[name][0]:
            found.append(f"{name} is pinned at {pins[name]}, the digests are of {hashes[name][0]}. Run `make hashes`.")
    return found


def withdrawn(said: str) -> list[str]:
    """The lines in which uv warns that a publisher has taken a version back."""
    return [line for line in said.splitlines() if "is yanked" in line]


def publish(uv: str, source: Path, *options: str) -> str:
    """The digests of what a file of requirements asks for, as the index gives them; nothing that was withdrawn."""
    command = [uv, "pip", "compile", str(source), "--generate-hashes", "--no-annotate", "--no-header", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The index did not answer for every pin: {done.stderr.strip()}")
    if lines := withdrawn(done.stderr):
        raise SystemExit("\n".join(["A pinned version was withdrawn by its publisher. Pin another one.", *lines]))
    return done.stdout


def renew(path: Path, text: str) -> None:
    """Write a file if that changes it: make installs the tools anew whenever theirs was written."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def compare() -> None:
    """Stop where the two files do not name the same versions."""
    problems = differences(read_pins(CONSTRAINTS.read_text()), read_hashes(HASHES.read_text()))
    if problems:
        raise SystemExit("\n".join(problems))


def main() -> None:
    """Compare the two files; with `--write UV`, first ask the index with uv for all digests, and write them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", metavar="UV")
    uv = parser.parse_args().write
    if uv:
        tools = publish(uv, TOOLS, "--universal", "--python-version", "3.11")
        renew(HASHES, HEAD + publish(uv, CONSTRAINTS, "--no-deps"))
        renew(TOOLS.with_suffix(".txt"), HEAD_OF_TOOLS + tools)
        hashes = read_hashes(HASHES.read_text())
        sys.stdout.write(f"{sum(len(digests) for _, digests in hashes.values())} digests of {len(hashes)} pins.\n")
    compare()


if __name__ == "__main__":
    main()
