"""The site: every page has its place, every public name its entry, and nothing in it comes from a network."""

import importlib
import inspect
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_breast_cancer
from support.command import told
from support.source_trees import docstring

import backbones
import slots
from protocols.interfaces import SlotEncoder
from slots.errors import MissingExtraError

matplotlib.use("agg")

ROOT = Path(__file__).parent.parent
THEME = ROOT / "docs" / "theme"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONG = {"serve_and_label"}
"""Examples that only `make gallery` runs: a service and its jobs, processes that import everything."""
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def cells():
    return imported("example_cells")


@pytest.fixture(scope="module")
def site_links():
    return imported("site_links")


def imported(name):
    """A module of the site's own, which no package holds."""
    sys.path.insert(0, str(THEME))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(THEME))


def leaves(entries):
    """Pages that a navigation names, in order."""
    for entry in entries:
        for it in entry.values() if isinstance(entry, dict) else [entry]:
            yield from leaves(it) if isinstance(it, list) else [it]


def headings(text):
    """What can be linked to in a page, by Python-Markdown's rule."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", it.replace("`", "")).strip().lower() for it in titles]
    return {re.sub(r"[\s-]+", "-", it) for it in words}


def test_the_navigation_covers_every_page_once(site_links):
    named = list(leaves(CONFIG["nav"]))
    written = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]
    made = [
        *site_links.PAGES.values(),
        "commands.md",
        "gallery/index.md",
        *(f"gallery/{it.stem}.md" for it in EXAMPLES),
    ]
    assert sorted(named) == sorted(written + made)


def test_every_public_name_has_one_entry_in_the_reference():
    pages = [page.read_text() for page in (ROOT / "docs" / "api").glob("*.md")]
    entries = [name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert sorted(set(entries)) == sorted(entries)
    public = [f"slots.{name}" for name in slots.__all__ if name != "__version__"]
    public += [f"backbones.{name}" for name in backbones.__all__ if callable(getattr(backbones, name))]
    assert [it for it in public if it not in entries] == []
    for entry in entries:
        home, _, name = entry.rpartition(".")
        assert not name.startswith("_")
        assert described(home, name), entry


def described(home, name):
    """Docstring of an entry; where its package is not installed, as the source has it."""
    try:
        return getattr(importlib.import_module(home), name).__doc__
    except MissingExtraError:
        return docstring(ROOT, f"{home}.{name}")


def test_a_docstring_is_read_from_the_source_without_its_package():
    for dotted in ("protocols.interfaces.SlotStrategy", "protocols.interfaces.mlflow.load_model"):
        assert docstring(ROOT, dotted)
    assert docstring(ROOT, "protocols.interfaces.SlotEncoder") == inspect.getdoc(SlotEncoder)
    assert docstring(ROOT, "protocols.interfaces.mlflow.no_such_name") is None


def test_links_lead_to_headings():
    missing = []
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", page.read_text()):
            there = page if not link else page.parent / link
            if "://" not in link and there.suffix == ".md" and anchor not in headings(there.read_text()):
                missing.append((page.name, link, anchor))
    assert missing == []
    assert "what-data-takes" in headings("```\n# no\n```\n# What `--data` takes\n")


def test_nothing_of_the_site_comes_from_a_network():
    assert CONFIG["theme"]["font"] is False
    assert "offline" in CONFIG["plugins"]
    assert "repo_url" not in CONFIG  # a theme with one asks its host for stars
    taken = [*CONFIG["extra"]["polyfills"], *CONFIG["extra_css"], CONFIG["theme"]["favicon"]]
    assert any("iframe-worker" in it for it in taken)  # else the offline plugin takes that script from a CDN
    assert [it for it in taken if not (ROOT / "docs" / it).is_file()] == []
    texts = [(ROOT / "docs" / it).read_text() for it in taken if not it.endswith(".svg")]
    assert not any("//" in text.replace("/*", "") for text in texts)
    assert not [page.name for page in PAGES if re.search(r"(?:!\[[^\]]*\]\(|src=\")https?:", page.read_text())]


def test_links_out_of_the_docs_are_moved(site_links):
    text = "[a](../CHANGELOG.md) [`b`](../benchmarks/results/gpu.json) [c](updates.md#time) `[d](../README.md)` [e](https://f.g)"
    assert site_links.moved_links(text, "gpu.md") == (
        "[a](changelog.md) [`b`](source/benchmarks/results/gpu.json) [c](updates.md#time) `[d](../README.md)` [e](https://f.g)"
    )
    assert site_links.moved_links("[x](../docs/gpu.md) [y](../README.md) [z](../Makefile)", "security.md") == (
        "[x](gpu.md) [y](index.md) [z](source/Makefile.txt)"
    )
    assert site_links.moved_links("[x](../examples) [y](../examples/own_embeddings.py)", "start.md") == (
        "[x](gallery/index.md) [y](gallery/own_embeddings.md)"
    )
    assert site_links.moved_links("[x](../../protocols/commands)", "api/fit.md") == "[x](../commands.md)"
    assert site_links.moved_links("[x](../gone.md)", "gpu.md") == "[x](../gone.md)"  # the build stops at it
    assert "benchmarks/results/gpu.json" in site_links.linked()
    assert "[run-ood-mnist-cnn.json](../../results/run-ood-mnist-cnn.json)" in site_links.listing("docs/results")


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """What the first page asks of a reader: rows, a table, and a folder of images a class."""
    cancer = load_breast_cancer()
    rows = ((cancer.data - cancer.data.mean(0)) / cancer.data.std(0)).astype("float32")
    np.savez(tmp_path / "rows.npz", x=rows, y=cancer.target)
    lines = [
        ",".join([*(f"{it:.4f}" for it in row), f"kind {label}"])
        for row, label in zip(rows, cancer.target, strict=True)
    ]
    (tmp_path / "table.csv").write_text("\n".join([",".join([*cancer.feature_names, "label"]), *lines]))
    for number, colour in enumerate((60, 190)):
        folder = tmp_path / "photos" / f"kind {number}"
        folder.mkdir(parents=True)
        noise = np.random.default_rng(number).integers(-40, 40, (20, 24, 24, 3)) + colour
        for it, image in enumerate(noise.astype("uint8")):
            Image.fromarray(image).save(folder / f"{it}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_page_works_on_data_of_ones_own(own_data, capsys):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "start.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("slots ")]
    assert [shlex.split(line)[1] for line in lines] == ["fit", "fit", "fit", "predict", "ood", "update"]
    for line in lines:
        told(capsys, *shlex.split(line)[1:])
    assert len((own_data / "answers.csv").read_text().splitlines()) > 30
    assert (own_data / "runs" / "mine" / "queries.html").is_file()


# --- examples


def test_a_script_is_read_as_cells(cells, tmp_path):
    script = tmp_path / "small.py"
    script.write_text(
        '"""A title.\n\nWhat it is.\n"""\n\n# %% [markdown]\n# ## Head\n#\n# Words.\n\n# %%\nx = 1\n\n\ny = 2\n'
    )
    found = cells.read(script)
    assert (found.name, found.title, found.about) == ("small", "A title", "What it is.")
    assert [(it.kind, it.text) for it in found.cells] == [
        ("markdown", "## Head\n\nWords."),
        ("code", "x = 1\n\n\ny = 2"),
    ]
    page = cells.as_page(found, names=["slots.fit"])
    assert page.startswith("# A title\n\nWhat it is.\n\n![A title](small.png)")
    assert "```python\nx = 1\n\n\ny = 2\n```" in page
    assert "[`slots.fit`][slots.fit]" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "small.py must begin with a docstring"),
        ('"""A title."""\nx = 1\n', "small.py must have a line `# %%`"),
    ],
)
def test_a_script_without_parts_is_refused(cells, text, said, tmp_path):
    (tmp_path / "small.py").write_text(text)
    with pytest.raises(ValueError, match=said):
        cells.read(tmp_path / "small.py")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_notebook_is_the_script(cells, path):
    notebook = json.loads(cells.notebook_text(cells.read(path)))
    code = [line for it in notebook["cells"] if it["cell_type"] == "code" for line in it["source"]]
    script = path.read_text().split("# %%\n")[1:]
    script = [re.split(r"^# %%", it, flags=re.MULTILINE)[0].strip("\n") for it in script]
    assert "".join(code) == "".join(script)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({it["id"] for it in notebook["cells"]}) == len(notebook["cells"])
    assert all(set(it) >= {"cell_type", "metadata", "source", "id"} for it in notebook["cells"])


def test_notebooks_are_written(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["example_cells.py", str(tmp_path / "made")])
    runpy.run_path(str(THEME / "example_cells.py"), run_name="__main__")
    assert sorted(it.stem for it in (tmp_path / "made").iterdir()) == [it.stem for it in EXAMPLES]
    assert str(tmp_path) in capsys.readouterr().out


def test_there_is_an_example_for_each_job():
    assert len(EXAMPLES) >= 10
    assert {it.stem for it in EXAMPLES} > LONG
    pictures = {it.stem for it in (ROOT / "docs" / "gallery").glob("*.png")}
    assert {it.stem for it in EXAMPLES} == pictures


@pytest.mark.parametrize("path", [it for it in EXAMPLES if it.stem not in LONG], ids=lambda path: path.stem)
def test_an_example_runs_and_draws_its_picture(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(plt.get_fignums())
    runpy.run_path(str(path), run_name="__main__")
    (number,) = set(plt.get_fignums()) - before
    plt.close(number)
    made = tmp_path / "runs" / "examples" / f"{path.stem}.png"
    assert made.read_bytes()[:4] == b"\x89PNG"
    assert matplotlib.image.imread(made).std() > 0.05  # something is drawn
