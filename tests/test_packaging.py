"""What is installed is complete, is what gets tested, and its examples are true."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import slots
from slots.errors import MissingExtraError

CHECKOUT = Path(__file__).parent.parent
PACKAGES = ("slots", "backbones", "protocols")
WHEEL = os.environ.get("SLOTS_TEST_WHEEL") == "1"


def modules():
    names = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [package, *(module.name for module in pkgutil.walk_packages(path, f"{package}."))]
    return names


def imported(name):
    try:
        return importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", modules())
def test_each_example_in_a_docstring_is_true(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for docstring in doctest.DocTestFinder().find(imported(name)):
        if docstring.examples:  # a debugger is made ready for each run, which looks at every file that was ever read
            runner.run(docstring)
    assert runner.failures == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package):
    assert (Path(importlib.import_module(package).__file__).parent / "py.typed").is_file()


@pytest.mark.skipif(not WHEEL, reason="only `make test` installs the wheel")
@pytest.mark.parametrize("name", PACKAGES)
def test_the_installed_wheel_is_what_is_tested(name):
    site = Path(sysconfig.get_path("purelib")).resolve()
    assert site in Path(importlib.import_module(name).__file__).resolve().parents


@pytest.mark.skipif(not WHEEL, reason="only `make test` installs the wheel")
def test_the_wheel_holds_our_files_and_no_others():
    # Files not yet committed count, too: the wheel is built from the folder.
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    if not tracked:
        pytest.skip("no git checkout to compare with")
    installed = {str(file) for file in metadata.files("neural-slots") if "__pycache__" not in file.parts}
    ours = {file for file in installed if "dist-info" not in file and not file.startswith("..")}
    assert ours == {file for file in tracked if (CHECKOUT / file).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder of a wheel built from the checkout, laid out as in site-packages."""
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = builders.WheelBuilder(str(CHECKOUT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_brings_our_three_packages_and_no_other_name(wheel):
    assert {path.name for path in wheel.iterdir()} == {*PACKAGES, f"neural_slots-{slots.__version__}.dist-info"}


def test_the_command_of_the_wheel_starts_ours_beside_another_packages_cli(wheel, tmp_path, monkeypatch):
    (wheel / "cli.py").write_text("def main(): print('not ours')\nmain()\n")
    (tmp_path / "cli.py").write_text("raise SystemExit('not ours either')\n")
    code = (
        "import sys; from importlib import metadata\n"
        "(found,) = next(metadata.distributions(name='neural-slots')).entry_points.select(group='console_scripts')\n"
        "sys.argv[0], main = found.name, found.load(); print(main.__module__, sys.modules[main.__module__].__file__)\n"
        "main()"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{wheel}")
    command = [sys.executable, "-P", "-c", code, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    started, said = done.stdout.splitlines()
    assert started == f"protocols.commands {wheel / 'protocols' / 'commands' / '__init__.py'}"
    assert said == f"slots {slots.__version__}"


@pytest.mark.skipif(not WHEEL, reason="only `make test` installs the wheel")
def test_the_installed_files_are_those_of_the_checkout():
    for package in PACKAGES:
        for file in (CHECKOUT / package).rglob("*.py"):
            relative = file.relative_to(CHECKOUT)
            assert (Path(slots.__file__).parent.parent / relative).read_bytes() == file.read_bytes(), relative


def test_what_one_target_leaves_out_the_other_runs():
    rules = re.findall(r'\$\(PYTEST\) -m ("[^"]+"|\w+)', (CHECKOUT / "Makefile").read_text())
    assert rules == ['"not slow"', "slow"]
    lines = (CHECKOUT / ".ci" / "run").read_text().splitlines()
    assert {"make test", "make test-slow"} <= set(lines)


def test_one_version():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["version"] == slots.__version__
    if WHEEL:
        assert metadata.version("neural-slots") == slots.__version__


def test_how_to_cite_names_this_version_and_is_what_readers_of_it_take():
    checker = Path(sys.executable).parent / "check-jsonschema"
    if not checker.exists():
        pytest.skip("needs check-jsonschema")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert cited["version"] == slots.__version__
    assert cited["license"] == project["license"]["text"]
    assert [it["name"] for it in cited["authors"]] == [it["name"] for it in project["authors"]]
    assert cited["keywords"] == project["keywords"]
    command = [checker, "--builtin-schema", "vendor.citation-file-format", str(CHECKOUT / "CITATION.cff")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def pins():
    """What constraints.txt names: each distribution, as packaging names it, and its version."""
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line[:1] not in {"#", ""}]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)  # no hosts, no options
    named = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert len(named) == len(lines)
    return named


def test_every_dependency_has_a_pin_that_it_allows():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = ("faiss-cpu", "faiss-gpu", "text", "parquet", "serve", "postgres", "s3", "mlflow", "onnx", "test")
    asked = [*project["dependencies"], *(line for extra in (*installed, "peers") for line in extras[extra])]
    pinned = pins()
    for requirement in map(Requirement, asked):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.skipif(not WHEEL, reason="only `make test` installs from the pins")
def test_what_is_installed_is_what_is_pinned():
    pinned = pins()
    # Only what lies in the environment: setuptools puts what it carries along on the path once it is imported.
    found = metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    # One distribution is `ml_dtypes` to itself and `ml-dtypes` to the index: packaging's form is the same for both.
    versions = {canonicalize_name(d.metadata["Name"]): d.version.split("+")[0] for d in found}
    assert {name: version for name, version in versions.items() if pinned.get(name, version) != version} == {}
    assert set(versions) - set(pinned) <= {"pip", "setuptools", "neural-slots"}


def test_the_light_modules_load_nothing_heavy():
    code = (
        "import sys, slots, slots.errors, protocols.commands.app, protocols.app.doctor, protocols.data; "
        "print({'torch', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_name_of_the_package_is_what_it_says_also_when_asked_twice():
    code = "import slots\nfor _ in range(2):\n    for name in slots.__all__: print(type(getattr(slots, name)).__name__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    kinds = done.stdout.split()
    assert "module" not in kinds
    assert len(kinds) == 2 * len(slots.__all__)
