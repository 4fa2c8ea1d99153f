"""The README is run: its Python as doctests, its shell line by line, its options looked up in the help."""

import contextlib
import doctest
import io
import itertools
import re
import runpy
import shlex
import signal
import sys
import warnings
from pathlib import Path

import httpx
import pytest
from support.nursery import begin, run

from protocols.commands import main

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
    pages = [page for page in sorted((README.parent / "docs").rglob("*.md")) if ">>> " in page.read_text()]
    assert pages
    for page in pages:
        with warnings.catch_warnings():
            assert doctest.testfile(str(page), module_relative=False).failed == 0


PRINTING = [
    pytest.param(code, shown, id=page.name)
    for page in sorted((README.parent / "docs").glob("*.md"))
    for code, shown in re.findall(
        r"^```python\n((?:(?!```).)*)^```\n\n```text\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    if "slots.Client(" not in code  # asks a service
]


def form(text):
    """What is printed, without what another processor or version may round or count otherwise."""
    return re.sub(r"#(?:,? #)*", "#", re.sub(r"\d[\d.,]*\d|\d", "#", " ".join(text.split())))


def too_far(printed, shown):
    """Figures that no other processor explains: shares by 3 points, fractions by .15, large counts by a tenth.

    A line on which another processor made a list longer is left out, and the others are compared.
    """
    found = []
    for line in itertools.zip_longest(printed.strip().splitlines(), shown.strip().splitlines(), fillvalue=""):
        pairs = [re.findall(r"\d[\d,]*(?:\.\d+)?%?", text) for text in line]
        if len(pairs[0]) != len(pairs[1]):
            continue
        for got, wanted in zip(*pairs, strict=True):
            a, b = (float(it.strip("%,").replace(",", "")) for it in (got, wanted))
            room = 3 if "%" in wanted else 0.15 if "." in wanted else b / 10 if b >= 100 else abs(a - b)
            found += [(got, wanted)] if abs(a - b) > room else []
    return found


@pytest.mark.parametrize(("code", "shown"), PRINTING)
def test_examples_of_the_docs_print_what_stands_below_them(code, shown):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        exec(compile(code, "example", "exec"), {})
    assert form(out.getvalue()) == form(shown)
    assert too_far(out.getvalue(), shown) == []


def test_the_form_of_what_is_printed_leaves_out_figures_alone():
    assert len(PRINTING) > 8
    assert form("right: 93.7%\n[0, 0, 1] 58,384") == "right: #% [#] #"
    assert form("matched 3 of 5") != form("found 3 of 5")


def test_figures_that_are_no_longer_true_are_told_from_those_of_another_processor():
    shown = "right: 93.7%\n58,384 bytes, 0.73, slot 11"
    assert too_far("right: 91.2%\n57,000 bytes, 0.69, slot 40", shown) == []
    far = too_far("right: 89.9%\n30,000 bytes, 0.4, slot 11", shown)
    assert far == [("89.9%", "93.7%"), ("30,000", "58,384"), ("0.4", "0.73")]
    assert too_far("[0, 0, 1]\nright: 89.9%", "[0, 1]\nright: 93.7%") == [("89.9%", "93.7%")]


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) < 250


def shell_lines():
    """Commands of the five-minute tour, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("slots ")]


def served(words, folder):
    """Start a service on a port that is free, open the page that it names, and end it as Ctrl-C would."""
    words[words.index("--port") + 1] = "0"
    process = begin(words, cwd=folder, piped=True)
    try:
        said = process.stdout.readline()
        address = re.search(r"http://\S+", said)
        assert address, said + process.stdout.read()
        page = httpx.get(address[0], follow_redirects=True, timeout=60)
        assert page.status_code == 200
        assert "eight" in page.text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ran(words, folder, capsys):
    """Run a command as a user would: a fit in a process of its own, the others here, where everything is imported."""
    if words[:3] == ["fit", "--data", "digits"] and "--classes" not in words:
        done = run(words, cwd=folder)
        return done.returncode, done.stderr
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code, capsys.readouterr().err


def test_shell_examples_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
        status, said = ran(words, tmp_path, capsys)
        assert status == 0, f"{line}\n{said}"
    assert (tmp_path / "runs/digits/report.html").exists()
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 361


def test_options_named_in_the_readme_exist(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    help_text = ""
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        help_text += capsys.readouterr().out
    for option in set(re.findall(r"--[a-z][a-z-]+", README.read_text())):
        assert option in help_text, option


@pytest.mark.parametrize("script", ["headline.py", "scale.py"])
def test_figures_are_those_of_the_results(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, "--check"])
    try:
        runpy.run_path(str(README.parent / "benchmarks" / script), run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code  # noqa: PT017
