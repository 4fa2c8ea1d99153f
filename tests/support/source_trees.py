"""What the sources of a package say about themselves: who imports whom, and what docstrings leave undescribed."""

import ast
import functools
import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

_SECTION = re.compile(r"^ *Parameters\n *-+\n(.*?)(?=^ *[A-Z][A-Za-z ]*\n *-{3,}$|\Z)", re.DOTALL | re.MULTILINE)


def module_names(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """Every module's dotted name and its file."""
    found = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(modules: dict[str, Path], among: dict[str, Path] | None = None) -> dict[str, set[str]]:
    """Which modules each names in an import: at the top, in a function, or for the type checker alone.

    Those ``among`` others; default: among themselves.
    """
    among = modules if among is None else among
    return {name: _imported(name, file, among) - {name} for name, file in modules.items()}


@functools.lru_cache(maxsize=1)  # who asks several things of a file asks them in a row; all trees at once are a lot
def _parsed(source: str) -> tuple[ast.Module, list[ast.AST]]:
    """The tree of a source, and every node in it."""
    tree = ast.parse(source)
    return tree, list(ast.walk(tree))


def _imported(name: str, file: Path, modules: dict[str, Path]) -> set[str]:
    """Those of one file; of ``from a import b`` the module ``a.b`` where there is one, else ``a``."""
    found = set()
    for node in _parsed(file.read_text(encoding="utf-8"))[1]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{home}.{alias.name}" if f"{home}.{alias.name}" in modules else home for alias in node.names}
    return found & modules.keys()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another (Tarjan 1972), each sorted; none in a tree of layers."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            place = stack.index(name)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def hiding(folder: Path) -> list[str]:
    """Names of modules in a folder of scripts that Python's own or an installed package bears too.

    A script that is started by its path has its folder first in line, so such a module is imported in the package's
    place, by the package's other users too.
    """
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    names = sorted({path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()})
    return [it for it in names if it in sys.stdlib_module_names or PathFinder.find_spec(it, installed) is not None]


def raised_again(source: str) -> list[str]:
    """Exceptions that a module makes once and raises: each raise adds its frames to them, for as long as it runs."""
    tree, nodes = _parsed(source)
    made = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    raised = {node.exc.id for node in nodes if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name)}
    return sorted(made & raised)


def undescribed(source: str) -> list[str]:
    """Parameters that a public docstring lists and says nothing of: ``line name: parameter``."""
    if "Parameters" not in source:  # no such section: nothing to parse for
        return []
    return [
        f"{node.lineno} {node.name}: {parameter}"
        for node in _parsed(source)[1]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
        for parameter, described in _entries(ast.get_docstring(node) or "").items()
        if not described
    ]


def _entries(docstring: str) -> dict[str, bool]:
    """Names under ``Parameters``, and whether a line of description follows."""
    section = _SECTION.search(docstring)
    found: dict[str, bool] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else []:
        if line.strip() and not line.startswith(" "):
            names = [name.strip().lstrip("*") for name in line.split(":")[0].split(",")]
            found |= dict.fromkeys(names, False)
        elif line.strip():
            found |= dict.fromkeys(names, True)
    return found


def docstring(checkout, dotted):
    """Docstring of a class, a function or a module by its dotted name, from the source; None where there is none.

    For what needs a package that is not installed. A name that a package hands on is looked for at its home.
    """
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = checkout.joinpath(*parts[:length])
        file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if file.is_file():
            break
    tree, rest = ast.parse(file.read_text(encoding="utf-8")), parts[length:]
    for name in rest:
        handed = [it for it in ast.walk(tree) if isinstance(it, ast.ImportFrom)]
        home = next((it.module for it in handed if name in [alias.asname for alias in it.names]), None)
        if home is not None:
            return docstring(checkout, ".".join([home, *rest]))
        tree = next((it for it in tree.body if getattr(it, "name", None) == name), None)
        if tree is None:
            return None
    return ast.get_docstring(tree)
