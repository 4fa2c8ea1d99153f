"""Set cover against submodlib, apricot and OR-Tools, on coverage matrices made from the pixels of image sets.

    python benchmarks/cover.py --data-dir FOLDER --output benchmarks/results/cover.json

FOLDER (or SLOTS_DATA_DIR) holds NAME.npz with x_train and y_train. An instance of size N is the first N of
``numpy.random.default_rng(seed).permutation(60000)``; every example is a candidate whose cap reaches to the nearest
example of another label; it covers examples of its own class only. Peers that are not installed are named as skipped:
``pip install ortools apricot-select submodlib-py``.

Times are the process's processor seconds, which a busy machine disturbs least; with one thread they are what a clock
shows on an idle one. ``clock_s`` stands beside them; budgets of search are seconds on the clock.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from slots.cover.bits import CoverBlock, pack_bits, unpack_bits
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.greedy import greedy_set_cover_packed
from slots.cover.refined import refined_set_cover_packed

APRICOT_UP_TO = 1000  # seconds there, minutes beyond
SUBMODLIB_UP_TO = 20_000  # its Python sets do not fit beyond


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    warm_up()
    rows, asked = [], [(name, size) for name in arguments.sets for size in arguments.sizes]
    # Peers last: once apricot is imported, torch took ten times the processor time for the same tiles here.
    found = [ours(rows, name, size, arguments) for name, size in asked]
    for peer in (submodlib_rows, ortools_rows, apricot_rows):
        for (name, size), instance_found in zip(asked, found, strict=True):
            theirs(rows, name, size, peer, instance_found)
    result = {
        "schema": 1,
        "what": "set cover: processor seconds, clock seconds, slots",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "command": " ".join(["python", "benchmarks/cover.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": versions(),
        "rows": rows,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "mnist"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 5000, 20_000, 60_000])
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.0, 1.0, 5.0, 20.0], help="seconds of search")
    parser.add_argument(
        "--gemm-up-to", type=int, default=20_000, help="largest size at which the bare product is timed"
    )
    parser.add_argument("--repeats", type=int, default=7, help="median of so many, for what takes under a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("--data-dir or SLOTS_DATA_DIR is needed")
    return arguments


def writer(rows, name, size):
    """Function that adds a row and prints it."""

    def row(method, *, seconds=None, slots=None, **more):
        if seconds is not None:
            more = {"clock_s": round(seconds.clock, 6)} | more
        rows.append({"set": name, "size": size, "method": method, "cpu_s": seconds, "slots": slots} | more)
        shown = "" if seconds is None else f"{1000 * seconds:12.2f} ms"
        note = " ".join(f"{key}={value}" for key, value in more.items())
        print(f"{name:14} {size:6} {method:44} {shown:>15} {'' if slots is None else slots:>6} {note}", flush=True)

    return row


def ours(rows, name, size, arguments):
    """Our rows of one instance; returns what the peers need of it."""
    row = writer(rows, name, size)
    x, y = instance(arguments.data_dir, name, size, arguments.seed)
    seconds, thresholds = timed(lambda: cap_thresholds(x, y, x, y))
    more_seconds, blocks = timed(lambda: coverage_bits(x, y, thresholds, x, y))
    greedy_s, picks = median(lambda: greedy_set_cover_packed(blocks), arguments.repeats)
    total = seconds + more_seconds + greedy_s
    row("slots, features to slots", seconds=total, slots=len(picks))
    if size <= arguments.gemm_up_to:
        bare, _ = timed(lambda: bare_product(x))
        row("the product of the features alone", seconds=bare, ours_over_this=round(total / bare, 3))
    row("slots greedy", seconds=greedy_s, slots=len(picks))
    matrices = [unpack_bits(block.words, len(block.examples)) for block in blocks]
    seconds, _ = median(lambda: greedy_set_cover_packed(repacked(blocks, matrices)), arguments.repeats)
    row("slots greedy, with packing", seconds=seconds, slots=len(picks))
    lists = listed(blocks, matrices)
    seconds, literal = timed(lambda: literal_greedy(lists, size))
    row("literal greedy", seconds=seconds, slots=len(literal), same_picks=literal == picks.tolist())
    for budget in arguments.budgets:
        repeats = arguments.repeats if budget == 0 else 1
        seconds, found = median(lambda b=budget: refined_set_cover_packed(blocks, time_budget_s=b), repeats)
        row(f"slots refined, {budget} s", seconds=seconds, slots=len(found))
    return lists, matrices, size, len(picks)


def theirs(rows, name, size, peer, found):
    """A peer's rows of one instance."""
    try:
        peer(writer(rows, name, size), *found)
    except ImportError as missing:
        writer(rows, name, size)(f"{peer.__name__.removesuffix('_rows')}: skipped, not installed", missing=missing.name)


def instance(folder, name, size, seed):
    """Features in [0, 1] and labels of one instance."""
    with np.load(folder / f"{name}.npz") as data:
        chosen = np.random.default_rng(seed).permutation(len(data["y_train"]))[:size]
        x = data["x_train"][chosen].reshape(size, -1).astype(np.float32) / 255
        return torch.from_numpy(x), torch.from_numpy(data["y_train"][chosen].astype(np.int64))


def bare_product(x, step=2048):
    """All scores, made and thrown away."""
    unit = torch.nn.functional.normalize(x)
    for i in range(0, len(x), step):
        for j in range(0, len(x), step):
            unit[i : i + step] @ unit[j : j + step].T


def repacked(blocks, matrices):
    """The same blocks, packed again."""
    return [
        CoverBlock(block.label, block.candidates, block.examples, pack_bits(matrix))
        for block, matrix in zip(blocks, matrices, strict=True)
    ]


def listed(blocks, matrices):
    """Examples that each candidate covers, over the whole set."""
    lists = [None] * sum(len(block.candidates) for block in blocks)
    for block, matrix in zip(blocks, matrices, strict=True):
        for candidate, covers in zip(block.candidates.tolist(), matrix.numpy(), strict=True):
            lists[candidate] = block.examples.numpy()[np.flatnonzero(covers)]
    return lists


def literal_greedy(lists, n_examples):
    """The definition: the largest gain, the lowest index among equals; gains kept by counting down."""
    gains = np.array([len(own) for own in lists])
    owners = np.repeat(np.arange(len(lists)), gains)
    examples = np.concatenate(lists)
    by_example = owners[np.argsort(examples, kind="stable")]
    ends = np.cumsum(np.bincount(examples, minlength=n_examples))
    covered, picks = np.zeros(n_examples, bool), []
    while gains.max() > 0:
        best = int(gains.argmax())
        picks.append(best)
        new = lists[best][~covered[lists[best]]]
        covered[new] = True
        for example in new:
            gains[by_example[ends[example - 1] if example else 0 : ends[example]]] -= 1
    return picks


def submodlib_rows(row, lists, _matrices, size, n_slots):
    """Rows of submodlib."""
    from submodlib.functions.setCover import SetCoverFunction

    if size > SUBMODLIB_UP_TO:
        return
    sets = [set(own.tolist()) for own in lists]
    build_s, function = timed(lambda: SetCoverFunction(n=size, cover_set=sets, num_concepts=size))
    seconds, found = timed(
        lambda: function.maximize(
            budget=min(n_slots + 1, size - 1), optimizer="LazyGreedy", stopIfZeroGain=True, show_progress=False
        )
    )
    row("submodlib LazyGreedy", seconds=seconds, slots=len(found))
    row("submodlib LazyGreedy, with building", seconds=build_s + seconds, slots=len(found))


def apricot_rows(row, _lists, matrices, size, n_slots):
    """Rows of apricot."""
    from apricot import MaxCoverageSelection

    if size > APRICOT_UP_TO:
        return
    matrix = torch.block_diag(*[m.double() for m in matrices]).numpy()
    selection = MaxCoverageSelection(n_slots, optimizer="lazy")
    seconds, _ = timed(lambda: selection.fit(matrix))
    row("apricot lazy", seconds=seconds, slots=len(selection.ranking))


def ortools_rows(row, lists, _matrices, _size, _n_slots):
    """Rows of OR-Tools."""
    from ortools.set_cover.python import set_cover

    build_s, model = timed(lambda: ortools_model(set_cover, lists))

    def solve(generator):
        invariant = set_cover.SetCoverInvariant(model)
        solver = generator(invariant)
        seconds, _ = timed(solver.next_solution)
        return seconds, round(invariant.cost()), invariant

    for label, generator in (
        ("OR-Tools greedy", set_cover.GreedySolutionGenerator),
        ("OR-Tools lazy element degree", set_cover.LazyElementDegreeSolutionGenerator),
    ):
        runs = [solve(generator) for _ in range(3)]
        seconds = sorted(run[0] for run in runs)[len(runs) // 2]
        row(label, seconds=seconds, slots=runs[0][1])
        row(f"{label}, with building", seconds=build_s + seconds, slots=runs[0][1])
    seconds, _, invariant = solve(set_cover.GreedySolutionGenerator)
    search = set_cover.GuidedLocalSearch(invariant)
    search.initialize()
    search.set_max_iterations(100_000)
    search_s, _ = timed(search.next_solution)
    row("OR-Tools guided local search, 100,000", seconds=seconds + search_s, slots=round(invariant.cost()))


def ortools_model(set_cover, lists):
    """Its model, built as its documentation does."""
    model = set_cover.SetCoverModel()
    for own in lists:
        model.add_empty_subset(1.0)
        for example in own.tolist():
            model.add_element_to_last_subset(example)
    model.create_sparse_row_view()
    return model


def warm_up():
    """Compile before anything is timed."""
    ring = np.eye(40, dtype=bool) | np.roll(np.eye(40, dtype=bool), 1, axis=1)
    block = CoverBlock(0, torch.arange(40), torch.arange(40), pack_bits(torch.from_numpy(ring)))
    greedy_set_cover_packed([block])
    refined_set_cover_packed([block], time_budget_s=0.1)


class Seconds(float):
    """Processor seconds, with the clock's beside them."""

    clock: float = 0.0

    def __add__(self, other):
        both = Seconds(float(self) + float(other))
        both.clock = self.clock + other.clock
        return both


def timed(call):
    """Seconds of one call, and its value."""
    start, clock = time.process_time(), time.perf_counter()
    value = call()
    seconds = Seconds(time.process_time() - start)
    seconds.clock = time.perf_counter() - clock
    return seconds, value


def median(call, repeats):
    """Median seconds of several calls, and the first value."""
    runs = [timed(call) for _ in range(repeats)]
    return sorted(run[0] for run in runs)[len(runs) // 2], runs[0][1]


def versions():
    """Of all that takes part."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "numba", "ortools", "apricot-select", "submodlib-py"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit():
    """The commit measured."""
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def processor():
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
