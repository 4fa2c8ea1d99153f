"""What the site takes from outside `docs/`: the changelog, files that are linked to, the commands' help, the examples.

MkDocs calls these functions while it builds. Nothing here is a second source: each page is made of what is in the
repository.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from example_cells import FOLDER, Example, all_examples, as_page, notebook_text
from mkdocs.structure.files import File
from site_links import PAGES, ROOT, home, linked, listing, moved_links

ENTRY = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the files and pages that are made, before links are checked."""

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    for origin, uri in PAGES.items():
        add(uri, (ROOT / origin).read_text(encoding="utf-8"))
    for path in linked():
        add(home(path), listing(path) if (ROOT / path).is_dir() else (ROOT / path).read_bytes())
    add("commands.md", _commands())
    nav = str(config["nav"])
    shown = sorted(all_examples(), key=lambda it: nav.find(f"gallery/{it.name}.md"))
    add("gallery/index.md", _gallery(shown))
    for it in shown:
        add(f"gallery/{it.name}.md", as_page(it, names=_used(it)))
        add(f"gallery/{it.name}.ipynb", notebook_text(it))
        add(f"gallery/{it.name}.py", (FOLDER / f"{it.name}.py").read_text(encoding="utf-8"))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links that leave `docs/` to their copies; add to each entry of the reference the examples that use it."""
    uri = page.file.src_uri
    if uri.startswith("api/"):
        markdown = ENTRY.sub(lambda found: _with_examples(found[1]), markdown)
    return moved_links(markdown, uri)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Set the references of docstrings, which are written as in reStructuredText."""
    if not page.file.src_uri.startswith("api/"):
        return html
    return re.sub(r"\[(\d+)\]_", r"[\1]", re.sub(r"\n\.\. \[", "<br>[", html.replace("<p>.. [", "<p>[")))


def on_post_page(output: str, **_: Any) -> str:
    """Give the search dialog a name, for those who hear the page."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


def _commands() -> str:
    """Every command with its arguments and options, from the command line's own help."""
    sys.path.insert(0, str(ROOT))
    try:
        from protocols.commands.app import parser
    finally:
        sys.path.remove(str(ROOT))
    said = ["# Commands", "What `slots COMMAND --help` says, in one page.", ""]
    for name, command in parser().commands.items():
        said += [f"## slots {name}", "", command.help or "", ""]
        if command.epilog:
            shown = re.split(r"(?:Examples?:|\s{2,})\s*(?=slots )", command.epilog)
            said += ["```", *(it.strip() for it in shown if it), "```", ""]
        rows = [_option(it) for it in command.params if not getattr(it, "hidden", False) and it.name != "help"]
        if rows:
            said += ["| option | what it does | default |", "|---|---|---|", *rows, ""]
    return "\n".join(said)


def _option(param: Any) -> str:
    named = ", ".join(f"`{it}`" for it in param.opts) if param.opts[0].startswith("-") else f"`{param.name.upper()}`"
    plain = isinstance(param.default, int | float | str) and not isinstance(param.default, bool) and param.default != ""
    text = " ".join((getattr(param, "help", None) or "").split()).replace("|", "\\|").replace("<", "&lt;")
    variable = f" (`${param.envvar}`)" if getattr(param, "envvar", None) else ""
    return f"| {named} | {text}{variable} | {f'`{param.default}`' if plain else ''} |"


def _names() -> list[str]:
    """Names that have an entry in the reference, in order."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    return [name for page in pages for name in ENTRY.findall(page.read_text(encoding="utf-8"))]


def _used(example: Example) -> list[str]:
    """Names of the reference that an example uses."""
    return [name for name in _names() if re.search(rf"\b{re.escape(name.rsplit('.', 1)[-1])}\b", example.code)]


def _with_examples(name: str) -> str:
    links = [f"[{it.title}](../gallery/{it.name}.md)" for it in all_examples() if name in _used(it)]
    if not links:
        return f"::: {name}"
    return f"::: {name}\n\nExamples with `{name.rsplit('.', 1)[-1]}`: {', '.join(links)}\n{{.examples}}"


def _gallery(shown: list[Example]) -> str:
    """The gallery's first page: a card an example."""
    said = [
        "# Gallery",
        "Each example is a script of the folder `examples/` that runs in the tests. "
        "Its page and its notebook are made of it.",
        '<div class="grid cards" markdown>',
    ]
    for it in shown:
        first = " ".join(it.about.split("\n\n")[0].split())
        picture = f"[![{it.title}]({it.name}.png)]({it.name}.md)"
        said.append(f"-   {picture}\n\n    **[{it.title}]({it.name}.md)**\n\n    {first}")
    return "\n\n".join([*said, "</div>"]) + "\n"
