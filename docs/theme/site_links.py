"""Where the site has what pages link to outside `docs/`: some files become pages, others are copied under `source/`."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    ".github/SECURITY.md": "security.md",
    ".github/CONTRIBUTING.md": "contributing.md",
}
"""Files of the repository that are pages of the site, and where."""

MADE = {"README.md": "index.md", "examples": "gallery/index.md", "protocols/commands": "commands.md"}
"""Files and folders that a page of the site stands for."""

LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def moved_links(markdown: str, uri: str) -> str:
    """Point the links of a page that leave `docs/` to where the site has what they lead to.

    Parameters
    ----------
    markdown : str
        The page, with links as they are right in the repository.
    uri : str
        Its path in the site's sources, such as ``service.md``.

    Returns
    -------
    str
    """
    origin = {made: path for path, made in PAGES.items()}.get(uri, f"docs/{uri}")

    def moved(found: re.Match[str]) -> str:
        path = target(found[1], origin)
        return found[0] if path is None else relative(home(path), uri) + (found[2] or "")

    return outside_code(markdown, lambda text: LINK.sub(moved, text))


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change a page but for its blocks and spans of code."""
    # A span in the text of a link leaves the link's target to the piece behind it, where it is still found.
    return "".join(piece if number % 2 else change(piece) for number, piece in enumerate(CODE.split(markdown)))


def target(link: str, origin: str) -> str | None:
    """Path in the repository that a link in a file leads to; None for addresses and what is not there."""
    if ":" in link:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def home(path: str) -> str:
    """Where the site's sources have a file or folder of the repository."""
    if path in PAGES or path in MADE:
        return PAGES.get(path) or MADE[path]
    if path.startswith("examples/"):
        return f"gallery/{Path(path).stem}.md"
    if (ROOT / path).is_dir():
        return f"source/{path}.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" + ("" if path.endswith((".json", ".txt")) else ".txt")


def relative(there: str, here: str) -> str:
    """The link from one page's path to another's."""
    return os.path.relpath(there, posixpath.dirname(here) or ".").replace(os.sep, "/")


def linked() -> list[str]:
    """Files and folders that pages link to and that must be copied for that."""
    found = set()
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / origin for origin in PAGES)]:
        origin = page.relative_to(ROOT).as_posix()
        found |= {target(link[1], origin) for link in LINK.finditer(page.read_text(encoding="utf-8"))}
    return sorted(it for it in found if it and home(it).startswith("source/"))


def listing(folder: str) -> str:
    """A page with the files of a folder."""
    lines = [f"# {folder}", ""]
    for path in sorted((ROOT / folder).iterdir()):
        name = path.relative_to(ROOT).as_posix()
        shown = f"[{path.name}]({relative(home(name), home(folder))})" if name.startswith("docs/") else path.name
        lines.append(f"- {shown}")
    return "\n".join(lines) + "\n"
