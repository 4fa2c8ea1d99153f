"""The README is run: its Python as doctests, its shell line by line, its options looked up in the help."""

import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import httpx
from support.command import SLOTS

README = Path(__file__).parent.parent / "README.md"


COMMANDS = [
    "fit",
    "evaluate",
    "predict",
    "show",
    "doctor",
    "serve",
    "update",
    "log",
    "diff",
    "relabel",
    "undo",
    "ood",
    "clean",
    "run",
]


def test_python_examples_are_true():
    with warnings.catch_warnings():
        result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_python_examples_of_the_docs_are_true():
    pages = [page for page in sorted((README.parent / "docs").glob("*.md")) if ">>> " in page.read_text()]
    assert pages
    for page in pages:
        with warnings.catch_warnings():
            assert doctest.testfile(str(page), module_relative=False).failed == 0


def shell_lines():
    """Commands of the five-minute tour, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("slots ")]


def served(words, folder):
    """Start a service on a port that is free, open the page that it names, and end it as Ctrl-C would."""
    words[words.index("--port") + 1] = "0"
    process = subprocess.Popen(
        [*SLOTS, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = process.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address, said + process.communicate(timeout=60)[0]
        page = httpx.get(address[0], follow_redirects=True, timeout=60)
        assert page.status_code == 200
        assert "eight" in page.text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_shell_examples_run(tmp_path):
    lines = shell_lines()
    first = ["fit", "show", "evaluate", "predict", "doctor"]
    then = ["fit", "update", "update", "log", "diff", "relabel", "undo", "ood"]
    assert [shlex.split(line)[1] for line in lines] == [*first, *then, "clean", "run", "serve"]
    for line in lines:
        if line.startswith("slots doctor"):
            continue  # it judges the machine
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "serve":
            served(words, tmp_path)
            continue
        done = subprocess.run([*SLOTS, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "runs/digits/report.html").exists()
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 361


def test_options_named_in_the_readme_exist():
    env = {**os.environ, "COLUMNS": "200"}
    help_text = "".join(
        subprocess.run([*SLOTS, name, "--help"], capture_output=True, text=True, env=env, check=True).stdout
        for name in COMMANDS
    )
    for option in set(re.findall(r"--[a-z][a-z-]+", README.read_text())):
        assert option in help_text, option


def test_figures_are_those_of_the_results():
    script = README.parent / "benchmarks" / "headline.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
