"""What may be wrong with an installation, found by looking, with the line that mends it.

Nothing heavy is imported here: what may crash is tried in a process of its own, so that a broken torch is a finding and
not the end of the examination.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "neural-slots"
PACKAGES = ("slots", "backbones", "protocols")
REINSTALL = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
_OLDEST_PYTHON = (3, 11)
_FAISS = ("faiss-cpu", "faiss-gpu")
_WANTED_FREE_GIB = 1.0
_PATIENCE_S = 120.0

_TRY_TORCH = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__, "devices": devices}))
"""

_TRY_FAISS = """
import json, faiss, numpy
index = faiss.IndexFlatIP(2)
index.add(numpy.eye(2, dtype="float32"))
assert index.search(numpy.eye(2, dtype="float32"), 1)[1].ravel().tolist() == [0, 1]
print(json.dumps({"faiss": faiss.__version__}))
"""

_TRY_NUMBA = """
import json, numba
assert numba.njit(lambda n: n + 1)(1) == 2
print(json.dumps({"numba": numba.__version__}))
"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check of the installation.

    Attributes
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether it is as it should be.
    message : str
        What was seen.
    fix : str
        A line to run or a thing to do; empty when there is nothing to mend.
    """

    name: str
    ok: bool
    message: str
    fix: str = ""


def diagnose(*, data_dir: Path | None = None) -> list[Finding]:
    """Examine this installation; takes some seconds, since it tries torch, FAISS and numba for real.

    Parameters
    ----------
    data_dir : Path, optional
        Where data sets are kept; looked at for space and permission. Default: the current folder.

    Returns
    -------
    list of Finding
        In a fixed order: python, packages, torch, cuda, faiss, numba, folder, disk.
    """
    folder = data_dir or Path.cwd()
    torch, cuda = check_torch()
    return [
        check_python(sys.version_info[:2]),
        check_packages(sys.path),
        torch,
        cuda,
        check_faiss(sys.path),
        check_numba(),
        check_folder(folder),
        check_disk(folder),
    ]


def check_python(version: tuple[int, ...]) -> Finding:
    """Look at the interpreter's version, (major, minor)."""
    shown = ".".join(map(str, version))
    if version < _OLDEST_PYTHON:
        return Finding("python", False, f"{shown} is too old", "install Python 3.11 or newer")
    return Finding("python", True, f"{shown} ({platform.machine()} {platform.system()})")


def check_packages(path: Iterable[str], *, root: Path | None = None) -> Finding:
    """Look whether ``slots``, ``backbones`` and ``protocols`` are ours: another distribution is called ``slots`` too.

    Parameters
    ----------
    path : iterable of str
        Folders to look for distributions in, as in ``sys.path``.
    root : Path, optional
        The folder that holds the packages. Default: where this file was imported from.
    """
    path, home = list(path), root or _home()
    foreign = find_foreign(path, root=root)
    if foreign:
        return foreign[0]
    parts = [f"{package}/__init__.py" for package in PACKAGES]
    missing = [part for part in parts if not (home / part).is_file()]
    if missing:
        return Finding("packages", False, f"{missing[0]} is missing in {home}", REINSTALL)
    installed = _distributions(path)
    if DISTRIBUTION not in installed:
        return Finding(
            "packages", False, f"{DISTRIBUTION} is not installed; {home} is used", f"pip install {DISTRIBUTION}"
        )
    version, ours = installed[DISTRIBUTION].version, _version(home)
    if version != ours:
        return Finding("packages", False, f"{DISTRIBUTION} is {version}, but slots says {ours}", REINSTALL)
    return Finding("packages", True, f"{DISTRIBUTION} {version} in {home}")


def find_foreign(path: Iterable[str], *, root: Path | None = None) -> list[Finding]:
    """Look for packages that have the names of ours and are not: installed by others, or first on the path.

    This file stands in ``protocols``, so it still runs where ``slots`` or ``backbones`` is another's.

    Parameters
    ----------
    path : iterable of str
        Folders to look for distributions in, as in ``sys.path``.
    root : Path, optional
        The folder that holds our packages; what is imported is then left out. Default: where this file was imported
        from.

    Returns
    -------
    list of Finding
        One for each; empty where all is as it should be.
    """
    others = {name: found for name, found in sorted(_distributions(path).items()) if name != DISTRIBUTION}
    owned = {name: packages for name, found in others.items() if (packages := _packages_of(found))}
    # The reinstall comes last: removing the other one takes our files along.
    fix = f"pip uninstall -y {' '.join(owned)} && {REINSTALL}"
    found = []
    for name, packages in owned.items():
        what = f"a package {packages[0]!r}" if len(packages) == 1 else f"packages {' and '.join(map(repr, packages))}"
        folder = Path(str(others[name].locate_file(""))).resolve()
        found.append(Finding("packages", False, f"the distribution {name!r} in {folder} installs {what} too", fix))
    for package in PACKAGES if root is None else ():
        seen = _origin(package)
        if _home() not in seen.parents:
            thing = seen.parent if seen.name == "__init__.py" else seen
            fix_it = f"rename or remove {thing}, or take {thing.parent} off the import path (PYTHONPATH)"
            found.append(Finding("packages", False, f"{package!r} is taken from {seen}, which is not ours", fix_it))
    return found


def check_torch() -> tuple[Finding, Finding]:
    """Import torch and torchvision together, and look for CUDA devices."""
    seen, reason = _try(_TRY_TORCH)
    if seen is None:
        fix = "pip install --force-reinstall torch torchvision"
        return Finding("torch", False, reason, fix), Finding("cuda", False, "unknown, since torch does not work", fix)
    torch = Finding("torch", True, f"torch {seen['torch']}, torchvision {seen['torchvision']}")
    if seen["devices"]:
        return torch, Finding("cuda", True, ", ".join(seen["devices"]))
    if _driver_answers():
        fix = "update the NVIDIA driver, or install a torch built for it"
        return torch, Finding("cuda", False, "an NVIDIA driver answers, but torch cannot use it", fix)
    return torch, Finding("cuda", True, "no NVIDIA device; everything runs on the CPU")


def check_faiss(path: Iterable[str]) -> Finding:
    """Look whether one FAISS is installed and works; two overwrite each other's files."""
    present = [name for name in _FAISS if name in _distributions(path)]
    wanted = "faiss-gpu" if _driver_answers() else "faiss-cpu"
    install = f"pip install '{DISTRIBUTION}[{wanted}]'"
    if not present:
        return Finding("faiss", True, "not installed; search runs in torch", f"for quicker search: {install}")
    remove = f"pip uninstall -y {' '.join(present)}"
    if len(present) == 2:
        return Finding("faiss", False, "faiss-cpu and faiss-gpu overwrite each other", f"{remove} && {install}")
    seen, reason = _try(_TRY_FAISS)
    if seen is None:
        return Finding("faiss", False, f"{present[0]} is installed, but: {reason}", f"{remove} && {install}")
    return Finding("faiss", True, f"{present[0]} {seen['faiss']}")


def check_numba() -> Finding:
    """Compile a function."""
    seen, reason = _try(_TRY_NUMBA)
    if seen is None:
        return Finding("numba", False, reason, "pip install --force-reinstall numba llvmlite")
    return Finding("numba", True, f"numba {seen['numba']} compiles")


def check_folder(folder: Path) -> Finding:
    """Write where data are kept, or where that folder would be made; nothing stays."""
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"slots")
    except OSError as error:
        fix = "set SLOTS_DATA_DIR to a folder that you may write to"
        return Finding("folder", False, f"{nearest} cannot be written to: {error.strerror}", fix)
    return Finding("folder", True, f"{folder} can be written to")


def check_disk(folder: Path) -> Finding:
    """Look at the free space where data are kept."""
    free_gib = shutil.disk_usage(_nearest(folder)).free / 2**30
    shown = f"{free_gib:.1f} GiB free for {folder}"
    if free_gib < _WANTED_FREE_GIB:
        return Finding("disk", False, shown, f"make room: data and models want {_WANTED_FREE_GIB:g} GiB or more")
    return Finding("disk", True, shown)


def _try(code: str) -> tuple[dict[str, Any] | None, str]:
    """Run code in a process of its own; what it printed as JSON, or None and the last line of what went wrong."""
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(  # noqa: S603 -- our own constants
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer after {_PATIENCE_S:g} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"the process died with status {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1]), ""


def _driver_answers() -> bool:
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        return subprocess.run([command, "-L"], capture_output=True, timeout=20, check=False).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False


def _distributions(path: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Every distribution by its normalised name; the first on the path wins, as it does for imports."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=list(path)):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(name.lower().replace("_", "-").replace(".", "-"), distribution)
    return found


def _packages_of(distribution: metadata.Distribution) -> list[str]:
    """Which of our packages' names a distribution installs."""
    record = distribution.read_text("RECORD") or ""
    names = {line.partition("/")[0] for line in record.splitlines() if "/" in line}
    names |= set((distribution.read_text("top_level.txt") or "").split())
    names |= {line.partition(".py,")[0] for line in record.splitlines()}  # a module beside the packages
    return [package for package in PACKAGES if package in names]


def _origin(name: str) -> Path:
    """Where an import would come from, without importing it; the current folder if from nowhere."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin if spec is not None and spec.origin else ".").resolve()


def _home() -> Path:
    """The folder that holds our packages."""
    return Path(__file__).resolve().parents[2]


def _version(home: Path) -> str | None:
    """Read the version in ``slots/__init__.py`` as it lies on disk: a foreign one may have replaced it."""
    for line in (home / "slots" / "__init__.py").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "__version__":
            return value.strip().strip("\"'")
    return None


def _nearest(folder: Path) -> Path:
    """Find the folder itself, or the closest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
