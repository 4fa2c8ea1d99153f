"""What the pages name exists: links, paths, names of the packages, commands and their options."""

import functools
import importlib
import os
import re
from pathlib import Path

import pytest
from support.nursery import run
from support.source_trees import docstring

from slots.errors import MissingExtraError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
OURS = r"(?:slots|backbones|protocols|tests|benchmarks|docs|\.github)"
OPTION = r"(?<!\S)--[a-z][a-z-]+"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code(text):
    """Everything that is set as code, one piece each: lines of blocks with what they continue on, and inline spans."""
    fenced = r"^```.*?\n(.*?)^```"
    blocks = re.findall(fenced, text, re.DOTALL | re.MULTILINE)
    rest = re.sub(fenced, "", text, flags=re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"(?:^ {4}.*\n)+", rest, re.MULTILINE)
    rest = re.sub(r"^ {4}.*\n", "", rest, flags=re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()]
    return [line.split(" # ")[0].strip() for line in lines] + [
        " ".join(it.split()) for it in re.findall(r"`([^`]+)`", rest)
    ]


def links(text):
    """Targets of links and pictures inside the repository, without what follows a number sign."""
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [target.split("#")[0] for target in found if "://" not in target and not target.startswith("#")]


def paths(text):
    """Files and folders of the repository named in code; a name with a star stands for some file."""
    found = [it for piece in code(text) for it in re.findall(rf"(?<![\w/:.@-]){OURS}/[\w./*-]*", piece)]
    return [it.rstrip(".") for it in found]


def names(text):
    """Dotted names of the packages."""
    dotted = r"(?:slots|backbones|protocols)(?:\.[A-Za-z_]\w*)+"
    found = [it for piece in code(text) for it in re.findall(rf"(?<![\w/.-]){dotted}(?![\w/-])", piece)]
    return [it for it in found if it.split(".")[-1] not in {"py", "json"}]


def commands(text):
    """Command lines of `slots` and of the scripts: the command's name or the script's path, and the options."""
    found = []
    for piece in code(text):
        for name, rest in re.findall(r"(?:^|[\s|])(?:slots|python) ([a-z][\w/.-]*)((?: [^|;]*)?)", piece):
            if piece.startswith("slots ") or name.endswith(".py"):
                found.append((name, re.findall(OPTION, rest)))
    return found


@functools.cache
def options_of(name):
    """Options of a command by its help, and of a script by its source."""
    if name.endswith(".py"):
        return set(re.findall(r'"(--[a-z][a-z-]+)"', (ROOT / name).read_text()))
    env = {**os.environ, "COLUMNS": "200"}
    done = run([name, "--help"], env=env)
    assert done.returncode == 0, f"slots {name}: {done.stderr}"
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


def resolve(name):
    """The module, class, function or attribute behind a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        except MissingExtraError:
            if docstring(ROOT, name) is None:
                raise AttributeError(name) from None
            return name
        try:
            return functools.reduce(getattr, parts[end:], found)
        except MissingExtraError:
            if docstring(ROOT, name) is None:
                raise AttributeError(name) from None
            return name
    raise AttributeError(name)


@each_page
def test_links_lead_somewhere(page):
    assert [it for it in links(page.read_text()) if not (page.parent / it).exists()] == []


@each_page
def test_paths_exist(page):
    found = paths(page.read_text())
    assert [it for it in found if not (any(ROOT.glob(it)) if "*" in it else (ROOT / it).exists())] == []


@each_page
def test_names_exist(page):
    missing = []
    for name in dict.fromkeys(names(page.read_text())):
        try:
            resolve(name)
        except AttributeError:
            missing.append(name)
    assert missing == []


@each_page
def test_commands_have_these_options(page):
    unknown = [
        (name, it) for name, options in commands(page.read_text()) for it in options if it not in options_of(name)
    ]
    assert unknown == []


@each_page
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {it for piece in code(page.read_text()) for it in re.findall(r"^make ([a-z-]+)", piece)}
    assert named <= targets


def test_what_is_looked_for_is_found():
    text = (
        '[a](docs/a.md#b) ![c](c.png) <img src="d.png"> [e](https://f.org/g.py) `slots/model/slot_model.py` '
        "`SlotModel.load`\n"
        "`slots fit --data\nmnist | head --lines` and `slots.model.SlotModel` in `old:slots/gone.py`, "
        "slots that --fire\n\n"
        "    python benchmarks/cover.py --sizes 5 \\\n        --no-such 1   # a --comment\n\n"
        "```sh\nslots run ood --seeds 5 # --not\nmake demo\n```\n"
    )
    assert links(text) == ["docs/a.md", "c.png", "d.png"]
    assert paths(text) == ["benchmarks/cover.py", "slots/model/slot_model.py"]
    assert names(text) == ["slots.model.SlotModel"]
    assert commands(text) == [
        ("run", ["--seeds"]), ("benchmarks/cover.py", ["--sizes", "--no-such"]), ("fit", ["--data"])
    ]  # fmt: skip
    assert resolve("slots.model.SlotModel.load").__name__ == "load"
    with pytest.raises(AttributeError):
        resolve("slots.model.slot_model.Nothing")
    assert "--seeds" in options_of("run")
    assert "--no-such" not in options_of("benchmarks/cover.py")
