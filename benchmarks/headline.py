"""Write the figures into README.md, docs/results.md and the protocols' pages from the JSON files in docs/results.

Each JSON is the output of one command, which stands in it; run that to measure again (the ``result.json`` of a
``slots run`` is kept as ``run-PROTOCOL-DATA-FEATURES.json``). Usage::

    python benchmarks/headline.py            # rewrite the tables
    python benchmarks/headline.py --check    # exit 1 if they are stale
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

from protocols.harness.outcome import Column, MethodSummary
from protocols.harness.runner import Outcome
from protocols.harness.tables import (
    best,
    cell,
    groups,
    heading,
    is_best,
    made_by,
    markdown_table,
    notes,
    wide_markdown,
    wide_tables,
)
from protocols.runs.catalogue import PROTOCOLS, find_protocol

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
FITS = (
    "fit-mnist",
    "fit-mnist-full",
    "fit-mnist-explor",
    "fit-fashion_mnist",
    "fit-cifar10-explor",
    "fit-cifar10-pretrained",
    "fit-cifar10-unfolding",
    "fit-cifar10-positive",
    "fit-cifar10-resnet56",
)


FITS_NOTE = """AMD EPYC (Zen 4), 2 cores, no GPU; shares in percent; *matched*: inputs that at least one slot vouches
for, ambiguous answers included. The fits with a backbone ran beside other work, so their seconds say little, but for
`explor` on CIFAR-10, which had the machine to itself."""

MEASURES = {
    "held_out_100": "accuracy after 100 labels",
    "attacked": "accuracy under attack",
    "lifetime: final": "accuracy at the end of a month",
}
"""What a column says once it stands outside its own table."""


def load(name: str) -> dict[str, Any] | None:
    """A result, or None where it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(share: float | None) -> str:
    """A share as a percentage."""
    return "-" if share is None else f"{100 * share:.2f}"


def mnist_rows() -> str:
    """The README's table: all that is kept of MNIST, our figure beside the best of the others."""
    peers, fitted = load("prototypes-mnist"), load("fit-mnist")
    lines = ["| command | features | measure | slots | best of the others |", "|---|---|---|---|---|"]
    if peers and fitted:
        other = max(peers["rows"], key=lambda row: row["test_accuracy"])
        figures = [
            f"{percent(row['test_accuracy'])}, {row[count]:,} prototypes"
            for row, count in ((fitted, "n_slots"), (other, "prototypes"))
        ]
        ahead = int(other["test_accuracy"] > fitted["test_accuracy"])
        figures[ahead] = f"**{figures[ahead]}**"
        lines.append(f"| `slots fit` | pixels | test accuracy | {figures[0]} | {figures[1]} ({other['method']}) |")
    return "\n".join([*lines, *rival_rows("mnist")])


def headline() -> str:
    """The table of fits."""
    lines = [
        "| command | slots | test accuracy | matched | right when matched | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name in FITS:
        if fit := load(name):
            command = re.sub(r" --(out|data-dir|device) \S+| --json", "", fit["command"])
            shares = " | ".join(percent(fit[key]) for key in ("test_accuracy", "test_matched", "test_accuracy_matched"))
            lines.append(f"| `{command}` | {fit['n_slots']:,} | {shares} | {fit['elapsed_s']:.0f} |")
    return "\n".join(lines)


def results_page() -> str:
    """The page docs/results.md."""
    parts = ["# Results", "", "Made by `python benchmarks/headline.py` from the JSON files in [results/](results).", ""]
    parts += ["## Fits", "", headline(), ""]
    parts += [FITS_NOTE, ""]
    for name in FITS:
        if fit := load(name):
            versions = ", ".join(f"{key} {value}" for key, value in fit["versions"].items())
            parts += [
                f"### {name}",
                "",
                f"- command: `{fit['command']}`, seed {fit['seed']}, {fit['epochs']} epochs, on {fit['device']}",
                f"- data digest `{fit['data_digest'][:16]}`; {versions}",
                f"- training: accuracy {percent(fit['train_accuracy'])}, matched {percent(fit['train_matched'])}, "
                f"precision of the matched {percent(fit['train_precision'])}",
                f"- test: ambiguous {percent(fit['test_ambiguous'])}",
            ]
            parts += [f"- {fit['note']}"] if "note" in fit else []
            if foreign := load(name.replace("fit-", "foreign-")):
                parts.append(
                    f"- of {foreign['data']} ({foreign['n']:,} images) {percent(foreign['matched'])} are matched"
                )
            parts.append("")
    if peers := load("prototypes-mnist"):
        parts += ["## Peers on the same pixels", "", "| method | prototypes | test accuracy | fit s | predict s |"]
        parts += ["|---|---|---|---|---|"]
        for row in peers["rows"]:
            figures = f"{row['prototypes']:,} | {percent(row['test_accuracy'])} | {row['fit_s']} | {row['predict_s']}"
            parts.append(f"| {row['method']} | {figures} |")
        if fit := load("fit-mnist"):
            figures = f"{fit['n_slots']:,} | {percent(fit['test_accuracy'])} | {fit['elapsed_s']} | -"
            parts.append(f"| **slots**, 27 views of each input | {figures} |")
        parts += ["", f"`{peers['command']}`, seed {peers['seed']}, commit {peers['commit']}.", ""]
    for name in PROTOCOLS:
        if kept := runs(name):
            parts += [f"## {kept[0].title}", "", kept[0].about, "", run_tables(name, 3, wide=False), ""]
    return "\n".join(parts)


def update_rows() -> str:
    """Accuracy after an update by the labels asked: in each run of `slot-update` ours, and the best of the others."""
    kept = runs("slot-update")
    columns = [it for it in kept[0].columns if it.key == "before" or it.key.startswith("held_out_")] if kept else []
    lines = ["| data, features | method | " + " | ".join(heading(column) for column in columns) + " |"]
    lines.append("|---" * (2 + len(columns)) + "|")
    for found in kept:
        ranked_by = next(it for it in found.columns if it.key == found.headline)
        other = leader([row for row in found.rows if not row.ours], ranked_by)
        for row in (*(row for row in found.rows if row.ours), other):
            if row is not None:
                cells = [cell(row.figures.get(column.key), column.kind) for column in columns]
                method = f"**{row.method}**" if row.ours else row.method
                lines.append(f"| {where(found)} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


SHOWN = {
    "continual": ("new classes",),
    "ood": ("far sets, mean", "held-out classes"),
    "adversarial": ("answers, eps 0.1", "answers, eps 0.2"),
    "robustness": ("attacked, linf 0.1", "attacked, linf 0.2"),
}
"""Groups of a protocol that are shown beside the best of the others; all of a protocol that is not named."""


@functools.cache
def runs(protocol: str) -> list[Outcome]:
    """Kept results of a protocol, by file name."""
    paths = sorted(RESULTS.glob(f"run-{protocol}-*.json"))
    return [Outcome.from_json(json.loads(path.read_text())) for path in paths]


def protocol_rows() -> str:
    """In each run and group our first row, which is told least, beside the best of the others."""
    lines = ["| command | data, features | measure | slots | best of the others |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *rival_rows()])


def rival_rows(data: str | None = None) -> list[str]:
    """The rows of `protocol_rows`; or those of one data set, whose name is then left out."""
    lines = []
    for found in (it for name in PROTOCOLS for it in runs(name) if data in (None, it.data)):
        column = next(it for it in found.columns if it.key == found.headline)
        for group, rows in groups(found.rows):
            ours = next((row for row in rows if row.ours and column.key in row.figures), None)
            other = leader([row for row in rows if not row.ours], column)
            if ours is None or other is None or group not in SHOWN.get(found.protocol, (group,)):
                continue
            texts = [cell(row.figures[column.key], column.kind) for row in (ours, other)]
            ahead = [is_best(row.figures[column.key], [ours, other], column) for row in (ours, other)]
            mine, theirs = (f"**{text}**" if it else text for text, it in zip(texts, ahead, strict=True))
            what = where(found).removeprefix(f"{data}, ") + (f": {group}" if group else "")
            word = MEASURES.get(f"{found.protocol}: {column.key}", MEASURES.get(column.key, column.heading))
            measure = f"{word} ({len(found.seeds)} seed{'s' * (len(found.seeds) > 1)})"
            lines.append(f"| `slots run {found.protocol}` | {what} | {measure} | {mine} | {theirs} ({other.method}) |")
    return lines


def where(found: Outcome) -> str:
    """Data, features, and the options that are not the protocol's own."""
    usual = find_protocol(found.protocol).defaults
    changed = [f"{key}={json.dumps(value)}" for key, value in found.options.items() if value != usual.get(key)]
    return ", ".join([found.data, found.backbone, *changed])


def leader(rows: list[MethodSummary], column: Column) -> MethodSummary | None:
    """The row that is best in a column."""
    known = [row for row in rows if column.key in row.figures]
    return next((row for row in known if row.figures[column.key].mean == best(known, column)), None)


def run_tables(protocol: str, level: int, *, wide: bool = True) -> str:
    """All kept results of a protocol, a section each; ``wide`` adds the tables with a line for each data set."""
    parts = []
    for found in runs(protocol):
        parts += [f"{'#' * level} {where(found)}", ""]
        for group, rows in groups(found.rows):
            parts += [f"**{group}**", ""] if group else []
            parts += [markdown_table(rows, found.columns), ""]
        for table in wide_tables(found.rows, found.columns) if wide else ():
            parts += [f"**{table.title}**", "", wide_markdown(table), ""]
        parts += [*notes(found), ""] if notes(found) else []
        parts += [made_by(found), ""]
    return "\n".join(parts).rstrip()


def filled(text: str) -> str:
    """A page with its tables as the results say."""
    tables = [("mnist", mnist_rows()), ("update", update_rows()), ("protocols", protocol_rows())]
    tables += [*((f"run-{name}", run_tables(name, 3)) for name in PROTOCOLS)]
    for mark, table in tables:
        pattern = rf"<!-- results:{mark} -->\n(.*?)<!-- end -->"
        block = f"<!-- results:{mark} -->\n{table}\n<!-- end -->"
        text = re.sub(pattern, lambda _: block, text, flags=re.DOTALL)  # noqa: B023
    return text


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    marked = [
        path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if "<!-- results:" in path.read_text()
    ]
    pages = {path: filled(path.read_text()) for path in marked} | {ROOT / "docs/results.md": results_page()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if args.check:
        sys.exit(f"Stale: {', '.join(p.name for p in stale)}. Run python benchmarks/headline.py." if stale else 0)
    for path, text in pages.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
