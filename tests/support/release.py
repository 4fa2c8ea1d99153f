"""Is what was built whole? Installs it into a bare environment, outside the checkout, and lets it learn digits there.

    python tests/support/release.py dist            # the newest versions that are allowed
    python tests/support/release.py dist --lowest   # the lowest ones; needs uv beside this Python

The wheel is installed. The source archive must give the same files.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

EXTRA = "faiss-cpu"
ENOUGH = 0.95
"""Accuracy on the digits below which an installation does not work (share)."""


def built(folder: Path) -> tuple[Path, Path]:
    """The one wheel and the one source archive of a folder."""
    found = [sorted(folder.glob(f"neural_slots-*{end}")) for end in (".whl", ".tar.gz")]
    if [len(files) for files in found] != [1, 1]:
        raise SystemExit(f"`{folder}` must hold one wheel and one source archive, got {found}. Run `make dist`.")
    return found[0][0], found[1][0]


def differing(wheel: Path, archive: Path) -> list[str]:
    """Modules that one of the two lacks, or that differ."""
    with zipfile.ZipFile(wheel) as opened:
        one = {name: opened.read(name) for name in opened.namelist() if ".dist-info/" not in name}
    with tarfile.open(archive) as opened:
        files = {member.name.split("/", 1)[-1]: member for member in opened.getmembers() if member.isfile()}
        packages = {name.split("/")[0] for name in one}
        inside = {name: it for name, it in files.items() if name.split("/")[0] in packages}
        two = {name: opened.extractfile(it).read() for name, it in inside.items()}
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints; ends where it fails. Nothing of the checkout is on its path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    sys.stdout.write(f"+ {' '.join(map(str, command))}\n")
    sys.stdout.flush()
    done = subprocess.run(command, cwd=folder, env=clean, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n`{command[0]}` ended with {done.returncode}.")
    return done.stdout


def check(wheel: Path, *, lowest: bool) -> float:
    """Install a wheel and use it; the accuracy that its model reaches on the digits (share)."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        venv.create(folder / "bare", with_pip=True)
        scripts = folder / "bare" / ("Scripts" if os.name == "nt" else "bin")
        python, slots = scripts / "python", scripts / "slots"
        asked = f"{wheel.resolve()}[{EXTRA}]"
        if lowest:
            resolved = ["--resolution", "lowest-direct", "--python", python]
            run([sys.executable, "-m", "uv", "pip", "install", "--quiet", *resolved, asked], folder)
        else:
            run([python, "-m", "pip", "install", "--quiet", asked], folder)
        run([python, "-m", "pip", "check"], folder)
        version = wheel.name.split("-")[1]
        said = run([slots, "--version"], folder).strip()
        if said != f"slots {version}":
            raise SystemExit(f"`slots --version` must say {version}, got {said!r}.")
        run([slots, "doctor"], folder)
        run([slots, "fit", "--data", "digits", "--out", "digits"], folder)
        told = json.loads(run([slots, "evaluate", "digits", "--data", "digits", "--json"], folder))
        return float(told["accuracy"])


def main(arguments: list[str] | None = None) -> None:
    """Check a folder of built files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where `make dist` wrote the wheel and the source archive")
    parser.add_argument("--lowest", action="store_true", help="with the lowest versions that are allowed")
    options = parser.parse_args(arguments)
    wheel, archive = built(options.folder)
    others = differing(wheel, archive)
    if others:
        raise SystemExit(f"The wheel and the source archive must hold the same modules, and differ in {others}.")
    accuracy = check(wheel, lowest=options.lowest)
    if accuracy < ENOUGH:
        raise SystemExit(f"The installed model must be right on {ENOUGH:.0%} of the digits, got {accuracy:.2%}.")
    sys.stdout.write(f"{wheel.name}: whole, right on {accuracy:.2%} of the digits.\n")


if __name__ == "__main__":
    main()
