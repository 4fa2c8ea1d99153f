"""Set covers that others publish: the unicost files of OR-Library, against the best covers known.

    python benchmarks/cover_library.py --folder FOLDER --output benchmarks/results/cover_library.json

FOLDER holds OR-Library's ``scp*.txt`` (J. E. Beasley's page "Set covering"; costs are ignored: a candidate is a
candidate). Without it there are the six cyclic instances alone (which edges of a hypercube meet all its cycles of four;
Grossman and Wool 1997), which are made here and are those of the files. Best known sizes are those that the
literature on row weighting gives (Gao, Weise, Li, European Journal of Operational Research 246, 2015, and after it);
those of scpnre to scpnrh were not checked against it again. OR-Tools stands beside where it is installed.

Budgets are seconds on the clock, processor seconds stand beside them. One seed, since the picks of a search that the
clock ends differ from run to run as well.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from cover import ortools_model

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.recorded import keep, made_with

from slots.cover.bits import unpack_bits
from slots.cover.greedy import greedy_set_cover_packed, whole_block
from slots.cover.refined import compile_search, refined_set_cover_packed

BEST = {
    "4": [38, 37, 38, 38, 38, 37, 38, 37, 38, 38], "5": [34] * 8 + [35, 34], "6": [21, 20, 21, 20, 21],
    "a": [38, 38, 38, 37, 38], "b": [22] * 5, "c": [43] * 5, "d": [24] * 5, "e": [5] * 5,
    "nre": [16] * 5, "nrf": [10] * 5, "nrg": [60] * 5, "nrh": [33] * 5,
    "clr": [25, 23, 23, 23], "cyc": [60, 144, 342, 772, 1794, 3968],
}  # fmt: skip
"""Smallest covers known of each family's files, in order."""

FIRST = {"clr": 10, "cyc": 6}
"""The number of a family's first file; 1 for all others."""


def hypercube(n: int) -> np.ndarray:
    """Which edge of the n-dimensional cube lies in which of its cycles of four, shape (edge, cycle)."""
    edges = [(corner, axis) for corner in range(1 << n) for axis in range(n) if not corner >> axis & 1]
    place = {edge: i for i, edge in enumerate(edges)}
    cycles = []
    for a, b in itertools.combinations(range(n), 2):
        for corner in range(1 << n):
            if not corner & (1 << a | 1 << b):
                sides = (corner, a), (corner, b), (corner | 1 << b, a), (corner | 1 << a, b)
                cycles.append([place[side] for side in sides])
    covers = np.zeros((len(edges), len(cycles)), bool)
    covers[np.array(cycles).T, np.arange(len(cycles))] = True
    return covers


def read(file: Path) -> np.ndarray:
    """A file of OR-Library: rows, columns, the columns' costs, then how many columns cover each row and which."""
    numbers = np.array(file.read_text().split(), dtype=np.int64)
    n_examples, n_candidates = numbers[:2]
    covers, at = np.zeros((n_candidates, n_examples), bool), 2 + n_candidates
    for example in range(n_examples):
        n = numbers[at]
        covers[numbers[at + 1 : at + 1 + n] - 1, example] = True
        at += 1 + n
    return covers


def instances(folder: Path | None, families: list[str]):
    """Name, family, coverage and best known size of each."""
    for family in families:
        for number, best in enumerate(BEST[family], FIRST.get(family, 1)):
            name = f"scp{family}{number:02d}" if family == "cyc" else f"scp{family}{number}"
            if folder is not None and (folder / f"{name}.txt").exists():
                yield name, family, read(folder / f"{name}.txt"), best
            elif family == "cyc":
                yield name, family, hypercube(number), best
            else:
                print(f"{name}.txt is not in {folder}: left out", file=sys.stderr)


def spent(call):
    """Its processor seconds, seconds on the clock and result."""
    clock, used = time.perf_counter(), time.process_time()
    found = call()
    return round(time.process_time() - used, 3), round(time.perf_counter() - clock, 3), found


def measured(name: str, covers: np.ndarray, best: int, arguments: argparse.Namespace) -> dict:
    """One instance by all methods."""
    block = whole_block(torch.from_numpy(covers))
    used, clock, picks = spent(lambda: greedy_set_cover_packed([block]))
    row = {"name": name, "candidates": covers.shape[0], "examples": covers.shape[1], "best_known": best}
    row["greedy"] = {"slots": len(picks), "cpu_s": used, "clock_s": clock}
    for budget in arguments.budgets:
        used, clock, picks = spent(
            lambda b=budget: refined_set_cover_packed([block], time_budget_s=b, seed=arguments.seed)
        )
        whole = unpack_bits(block.words, covers.shape[1])[picks].any(0)
        if not whole.all():
            raise AssertionError(f"{name}: {int((~whole).sum())} of {covers.shape[1]} are not covered")
        row[f"refined, {budget:g} s"] = {"slots": len(picks), "cpu_s": used, "clock_s": clock}
    if arguments.peer:
        row["OR-Tools guided local search, 100,000"] = ortools_search(covers)
    return row


def ortools_search(covers: np.ndarray) -> dict:
    """OR-Tools: its greedy, then its guided local search."""
    from ortools.set_cover.python import set_cover

    model = ortools_model(set_cover, [np.flatnonzero(row) for row in covers])
    invariant = set_cover.SetCoverInvariant(model)

    def solve():
        set_cover.GreedySolutionGenerator(invariant).next_solution()
        search = set_cover.GuidedLocalSearch(invariant)
        search.initialize()
        search.set_max_iterations(100_000)
        search.next_solution()

    used, clock, _ = spent(solve)
    return {"slots": round(invariant.cost()), "cpu_s": used, "clock_s": clock}


def summary(rows: list[dict], families: dict[str, str]) -> dict:
    """For each family and method: by how much more than the best known, in per cent (mean), and how often as few."""
    methods = [method for method in rows[0] if isinstance(rows[0][method], dict)]
    found: dict = {}
    for family in [*dict.fromkeys(families.values()), "all"]:
        of = [row for row in rows if family in (families[row["name"]], "all")]
        found[family] = {
            method: {
                "above_best_known": round(
                    100 * statistics.mean(row[method]["slots"] / row["best_known"] - 1 for row in of), 2
                ),
                "as_few": sum(row[method]["slots"] <= row["best_known"] for row in of),
                "of": len(of),
            }
            for method in methods
        }
    return found


def main() -> None:
    """Measure, print, write after each instance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="OR-Library's files; without it the cyclic instances alone.")
    parser.add_argument("--families", nargs="+", choices=tuple(BEST), help="Default: all, or cyc without a folder.")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="Leave OR-Tools out.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compile_search()
    packages = ("torch", "numpy", "numba", *(("ortools",) if arguments.peer else ()))
    result = {"schema": 1, "what": __doc__.splitlines()[0], **made_with(__file__, arguments.seed, packages)}
    result["command"] = result["command"].replace(str(arguments.folder), "FOLDER")
    rows, families = [], {}
    wanted = arguments.families or (list(BEST) if arguments.folder else ["cyc"])
    for name, family, covers, best in instances(arguments.folder, wanted):
        rows.append(measured(name, covers, best, arguments))
        families[name] = family
        sizes = {method: found["slots"] for method, found in rows[-1].items() if isinstance(found, dict)}
        print(name, best, sizes, flush=True)
        keep({**result, "summary": summary(rows, families), "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
