"""What a release consists of: its workflow, the conda recipe, and the check of what was built."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support import release

import slots

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def jobs():
    return yaml.safe_load((CHECKOUT / ".github" / "workflows" / "release.yml").read_text())["jobs"]


# --- the workflow


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_what_their_runner_takes(path):
    checker = Path(sys.executable).parent / "check-jsonschema"
    if not checker.exists():
        pytest.skip("needs check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_was_built_is_checked_on_each_system_and_python():
    systems = ["ubuntu-latest", "macos-latest", "windows-latest"]
    newest, lowest = jobs()["newest"], jobs()["lowest"]
    assert newest["strategy"]["matrix"] == {"os": systems, "python": ["3.11", "3.12", "3.13", "3.14"]}
    assert newest["steps"][-1]["run"] == "python tests/support/release.py dist"
    assert lowest["strategy"]["matrix"] == {"os": systems}
    (python,) = [it["with"]["python-version"] for it in lowest["steps"] if "setup-python" in it.get("uses", "")]
    assert PROJECT["project"]["requires-python"] == f">={python}"
    assert lowest["steps"][-1]["run"] == "python tests/support/release.py dist --lowest"


def test_what_the_workflow_runs_is_there():
    runs = [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]
    helped = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"make ([a-z-]+)", " ".join(runs)):
        assert f"make {target} " in helped
    for path in re.findall(r"[\w./-]+\.(?:py|txt)\b|deploy/\w+", " ".join(runs)):
        assert (CHECKOUT / path).is_file(), path


# --- the conda recipe


def recipe():
    return yaml.safe_load((CHECKOUT / "deploy" / "conda" / "recipe.yaml").read_text())


def test_the_recipe_asks_for_what_the_project_asks_for():
    project = PROJECT["project"]
    asked = [f"python {project['requires-python']}"]
    for line in (*project["dependencies"], *project["optional-dependencies"]["faiss-cpu"]):
        need = Requirement(line)
        asked.append(f"{CONDA_NAMES.get(need.name, need.name)} {need.specifier}")
    assert recipe()["requirements"]["run"] == asked
    assert recipe()["requirements"]["host"] == [
        "python 3.11.*",
        "pip",
        PROJECT["build-system"]["requires"][0].replace(">", " >"),
    ]


def test_the_recipe_is_of_this_version_and_brings_the_command():
    found = recipe()
    assert found["context"]["version"] == slots.__version__
    assert found["package"]["name"] == PROJECT["project"]["name"]
    assert found["build"]["python"]["entry_points"] == [f"slots = {PROJECT['project']['scripts']['slots']}"]
    assert found["about"]["summary"] == PROJECT["project"]["description"]
    assert found["about"]["license"] == PROJECT["project"]["license"]["text"]
    assert (CHECKOUT / "deploy" / "conda" / found["source"]["path"] / "pyproject.toml").is_file()


# --- the check of what was built


def make(folder, wheel, archive):
    """A wheel and a source archive that hold these files."""
    with zipfile.ZipFile(folder / "neural_slots-1-py3-none-any.whl", "w") as opened:
        for name, text in wheel.items():
            opened.writestr(name, text)
    with tarfile.open(folder / "neural_slots-1.tar.gz", "w:gz") as opened:
        for name, text in archive.items():
            (folder / "file").write_text(text)
            opened.add(folder / "file", f"neural_slots-1/{name}")


def test_a_wheel_and_an_archive_of_the_same_modules_pass(tmp_path):
    make(tmp_path, {"slots/a.py": "1", "neural_slots-1.dist-info/RECORD": ""}, {"slots/a.py": "1", "tests/b.py": "2"})
    assert release.differing(*release.built(tmp_path)) == []


@pytest.mark.parametrize("archive", [{}, {"slots/a.py": "2"}, {"slots/a.py": "1", "slots/b.py": ""}])
def test_what_differs_is_named(tmp_path, archive):
    make(tmp_path, {"slots/a.py": "1"}, archive)
    with pytest.raises(SystemExit, match=r"must hold the same modules, and differ in \['slots/[ab]\.py'\]"):
        release.main([str(tmp_path)])


def test_two_wheels_are_refused(tmp_path):
    make(tmp_path, {"slots/a.py": "1"}, {"slots/a.py": "1"})
    (tmp_path / "neural_slots-2-py3-none-any.whl").touch()
    with pytest.raises(SystemExit, match="must hold one wheel and one source archive"):
        release.built(tmp_path)


def test_a_command_that_fails_ends_the_check_and_sees_nothing_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    said = release.run([sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'), os.getcwd())"], tmp_path)
    assert said.split() == ["None", str(tmp_path)]
    with pytest.raises(SystemExit, match="ended with 3"):
        release.run([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
