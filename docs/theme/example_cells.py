"""An example read as cells: the page of the gallery and the notebook are both made of the script.

A script of `examples/` begins with a docstring: its title, and what it is about. A line ``# %% [markdown]`` begins a
cell of text, written as comments, and ``# %%`` a cell of code. As a command this file writes the notebooks; it needs
nothing but Python.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook.

    Attributes
    ----------
    kind : {"markdown", "code"}
        What it holds.
    text : str
        Its lines, without blank ones around them.
    """

    kind: Literal["markdown", "code"]
    text: str


@dataclass(frozen=True)
class Example:
    """A script of the gallery.

    Attributes
    ----------
    name : str
        Its file's name without the ending.
    title : str
        First line of its docstring.
    about : str
        The rest of its docstring, as Markdown.
    cells : tuple of Cell
        In order.
    """

    name: str
    title: str
    about: str
    cells: tuple[Cell, ...]

    @property
    def code(self) -> str:
        """All code, in order."""
        return "\n\n".join(cell.text for cell in self.cells if cell.kind == "code")


def read(path: Path) -> Example:
    """Read a script.

    Parameters
    ----------
    path : Path
        A Python file.

    Returns
    -------
    Example

    Raises
    ------
    ValueError
        If it has no docstring, or no cell.
    """
    text = path.read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(text))
    if doc is None:
        raise ValueError(f"{path.name} must begin with a docstring: its title, then what it is about.")
    title, _, about = doc.partition("\n")
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    cells = tuple(_cell(mark.strip(), body.strip("\n")) for mark, body in zip(parts[::2], parts[1::2], strict=True))
    if not cells:
        raise ValueError(f"{path.name} must have a line `# %%` before its code.")
    return Example(path.stem, title.rstrip("."), about.strip(), cells)


def _cell(mark: str, body: str) -> Cell:
    if mark != "[markdown]":
        return Cell("code", body)
    return Cell("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines()))


def all_examples() -> list[Example]:
    """Every script of `examples/`, by name."""
    return [read(path) for path in sorted(FOLDER.glob("*.py"))]


def as_page(example: Example, *, names: list[str]) -> str:
    """The example as a page of the gallery, in Markdown.

    Parameters
    ----------
    example : Example
        What to show.
    names : list of str
        Dotted names of the reference that it uses.

    Returns
    -------
    str
    """
    got = f"[script]({example.name}.py){{download}} · [notebook]({example.name}.ipynb){{download}}"
    parts = [
        f"# {example.title}",
        example.about,
        f"![{example.title}]({example.name}.png)",
        f"Run it from a checkout: `python examples/{example.name}.py`. Download: {got}",
        *(cell.text if cell.kind == "markdown" else f"```python\n{cell.text}\n```" for cell in example.cells),
    ]
    if names:
        parts.append("**In the reference:** " + ", ".join(f"[`{name}`][{name}]" for name in names))
    return "\n\n".join(parts) + "\n"


def as_notebook(example: Example) -> dict[str, Any]:
    """The example as a notebook, nbformat 4.5.

    Parameters
    ----------
    example : Example
        What to show.

    Returns
    -------
    dict
        What the file's JSON holds.
    """
    head = Cell("markdown", f"# {example.title}\n\n{example.about}")
    cells = []
    for number, cell in enumerate((head, *example.cells)):
        made: dict[str, Any] = {"cell_type": cell.kind, "metadata": {}, "source": cell.text.splitlines(keepends=True)}
        made["id"] = hashlib.sha256(f"{example.name} {number}".encode()).hexdigest()[:8]
        if cell.kind == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(made)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def notebook_text(example: Example) -> str:
    """The notebook's file."""
    return json.dumps(as_notebook(example), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every example as a notebook."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for example in all_examples():
        (folder / f"{example.name}.ipynb").write_text(notebook_text(example), encoding="utf-8")
        sys.stdout.write(f"{folder / example.name}.ipynb\n")


if __name__ == "__main__":
    main()
