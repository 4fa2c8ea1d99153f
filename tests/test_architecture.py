"""The folders stay apart as agreed, and every check that says so has been seen to fail."""

import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from support.source_trees import circles, hiding, imports, module_names, raised_again, undescribed

import slots

CHECKOUT = Path(__file__).parent.parent
PACKAGES = ("slots", "backbones", "protocols")
MOST_FILES, MOST_LINES = 12, 400
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
OFFENCES = {
    "protocols above slots": ("slots/errors.py", "import backbones.precision"),
    "slots: ": ("slots/continual/buffer.py", "from slots.storage.atomic import Path"),
    "backbones: ": ("backbones/pruning/__init__.py", "def late():\n    import backbones.explanations"),
    "protocols: ": ("protocols/app/doctor.py", "import protocols.runs.catalogue"),
    "the service is started": ("protocols/runs/ood/peers.py", "import protocols.service.settings"),
    "no protocol knows": ("protocols/runs/ood/__init__.py", "import protocols.runs.adversarial"),
    "no circles": (
        "slots/cover/kernels.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import slots.cover.by_class",
    ),
}


def broken(folder):
    """Names of the contracts that do not hold there."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    report = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = report.stdout.splitlines()
    broken, kept = (
        [
            name for name in CONTRACTS if any(line.startswith(f"{name} {state}") for line in lines)
        ]  # and how many ignored
        for state in ("BROKEN", "KEPT")
    )
    assert set(CONTRACTS) - set(broken) == set(kept), report.stderr
    assert report.returncode == (1 if broken else 0)
    return broken


@pytest.fixture(scope="module")
def modules():
    return module_names(CHECKOUT, PACKAGES)


@pytest.fixture(scope="module")
def found(modules):
    """What each module imports, and what is wrong with it; each file is parsed once."""
    imported, raised, bare = {}, [], []
    for name, file in modules.items():
        source = file.read_text(encoding="utf-8")
        imported |= imports({name: file}, modules)
        raised += [f"{name}:{of}" for of in raised_again(source)]
        bare += [f"{name}:{of}" for of in undescribed(source)]
    return imported, raised, bare


@pytest.fixture
def copy(tmp_path):
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=lambda _, names: _no_source(names))
    return tmp_path


def _no_source(names):
    """What a copy of the sources leaves out."""
    return [name for name in names if name == "__pycache__" or ("." in name and not name.endswith(".py"))]


def test_every_contract_holds():
    assert broken(CHECKOUT) == []


@pytest.mark.parametrize("start", OFFENCES)
def test_one_import_breaks_one_contract(start, copy):
    file, statement = OFFENCES[start]
    (copy / file).write_text((copy / file).read_text() + f"\n{statement}\n")
    assert [name[: len(start)] for name in broken(copy)] == [start]


def test_one_module_alone_lives_through_the_service(copy):
    for name in ("served", "peers"):
        file = copy / "protocols" / "runs" / "lifetime" / f"{name}.py"
        file.write_text(file.read_text() + "\nimport protocols.service.statuses\n")
        found = broken(copy)
        assert [it[:22] for it in found] == ([] if name == "served" else ["the service is started"])


def test_every_contract_is_broken_once():
    assert [sum(name.startswith(start) for name in CONTRACTS) for start in OFFENCES] == [1] * len(CONTRACTS)


def test_no_module_reaches_itself(found, modules):
    """Nor through imports inside functions or for the type checker."""
    assert found[0].keys() == modules.keys()
    assert circles(found[0]) == []


def test_a_circle_through_a_function_is_found(tmp_path):
    (tmp_path / "house" / "room").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "a": "from house.room import b",
        "room/__init__": "",
        "room/b": "def late():\n    from .. import c\n    return c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.a",
        "d": "import house.a",
    }.items():
        (tmp_path / "house" / f"{name}.py").write_text(text)
    found = circles(imports(module_names(tmp_path, ("house",))))
    assert found == [["house.a", "house.c", "house.room.b"]]


@pytest.mark.parametrize("scripts", ["tests/support", "benchmarks"])
def test_no_script_hides_a_package(scripts):
    assert hiding(CHECKOUT / scripts) == []


def test_a_script_that_hides_a_package_is_found(tmp_path):
    for name in ("torch", "json", "slots_of_ours"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").touch()
    (tmp_path / "scipy").mkdir()  # a folder without it gives way to the package
    assert hiding(tmp_path) == ["json", "numpy", "torch"]


def test_no_folder_holds_too_many_files(modules):
    held = Counter(file.parent for file in modules.values() if file.name != "__init__.py")
    assert {folder.relative_to(CHECKOUT).as_posix(): n for folder, n in held.items() if n > MOST_FILES} == {}


def test_no_file_is_too_long(modules):
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules.items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_no_module_keeps_an_exception_that_it_raises(found):
    assert found[1] == []


def test_an_exception_that_is_kept_is_found():
    source = """
LATE, EARLY = TimeoutError("late"), None
FULL = OSError("full")


def write(to):
    if to is None:
        raise TimeoutError("none")
    raise FULL from None
"""
    assert raised_again(source) == ["FULL"]


def test_every_listed_parameter_is_described(found):
    assert found[2] == []


def test_a_parameter_without_a_description_is_found():
    source = '''
class Head:
    """Slots.

    Parameters
    ----------
    beta, gamma : float
        Inverse temperatures.
    labels : int64 tensor of shape (slot,)

    Raises
    ------
    UsageError
        Never.
    """

    def find(self, x, *more):
        """Slots of ``x``.

        Parameters
        ----------
        x : float tensor
        *more : int

        Returns
        -------
        int
        """
'''
    assert undescribed(source) == ["2 Head: labels", "17 find: x", "17 find: more"]


@pytest.mark.parametrize("name", slots.__all__)
def test_every_public_name_is_there(name):
    assert getattr(slots, name) is not None
