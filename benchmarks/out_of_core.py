"""Two million rows in four gigabytes: fit, answer, judge novelty, propose and update, none of which may take more.

    python benchmarks/out_of_core.py --rows 200000 2000000 --output benchmarks/results/out_of_core.json
    python benchmarks/out_of_core.py --graph 200000 500000 2000000 --output benchmarks/results/out_of_core_graph.json

Rows of a mixture of Gaussians lie on the disk as ``.npy`` and are mapped, not read. A model learns all but the last of
its classes; then come as many new rows of all classes. Each step runs in a process of its own whose data segment
(``RLIMIT_DATA``: all memory that is not a file's) may not grow beyond the limit, so that whatever needs more ends in an
error, and with it the measurement. Peaks are of the process's own memory (``RssAnon``), sampled; the pages of mapped
files, which the system may drop at any time, are not in them. Linux.

With ``--graph`` groups without labels (`slots.learn_graph`) are found instead. Of more numbers of rows than one the
exponent of the processor time between each and the next is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.recorded import keep, made_with

BLOCK = 100_000
STEPS = ("fit", "predict", "assess_novelty", "propose", "update")
GRAPH = "graph"
ASKED = 50


def write_rows(folder: Path, name: str, n: int, features: int, classes: int, seed: int) -> None:
    """Write rows and labels block by block."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(classes, features))
    x = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(n, features))
    y = rng.integers(0, classes, n)
    for start in range(0, n, BLOCK):
        mine = y[start : start + BLOCK]
        x[start : start + BLOCK] = centres[mine] + rng.normal(0, 1.0, (len(mine), features))
    x.flush()
    np.save(folder / f"{name}_labels.npy", y)


class Peak(threading.Thread):
    """The most memory of its own that this process has, as it goes along."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.start()

    def run(self) -> None:
        """Look fifty times a second."""
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.bytes = max(self.bytes, int(line.split()[1]) << 10)
            time.sleep(0.02)


def step(folder: Path, name: str) -> dict[str, float]:
    """One step in this process; gives its figures."""
    import slots
    from slots.model.slot_model import SlotModel

    peak, started, used = Peak(), time.perf_counter(), time.process_time()
    x = np.load(folder / ("old.npy" if name == "fit" else "new.npy"), mmap_mode="r")
    y = np.load(folder / ("old_labels.npy" if name == "fit" else "new_labels.npy"))
    found: dict[str, float] = {}
    if name == "fit":
        model, result = slots.fit(x, y)
        model.save(folder / "m")
        found = {"slots": model.head.n_slots, "right_when_matched_left_out": _share(result.closing.vouching)}
    else:
        model = SlotModel.load(folder / "m")
        found = _answered(model, name, x, y, folder)
    spent = time.perf_counter() - started, time.process_time() - used
    return {**found, "seconds": round(spent[0], 1), "processor_s": round(spent[1], 1), "peak_mib": peak.bytes >> 20}


def graph_step(folder: Path) -> dict[str, float]:
    """Groups of the mapped rows, held against their classes."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from slots.graph import learn_graph

    peak, started, used = Peak(), time.perf_counter(), time.process_time()
    y = np.load(folder / "rows_labels.npy")
    found = learn_graph(np.load(folder / "rows.npy", mmap_mode="r"))
    spent = time.perf_counter() - started, time.process_time() - used
    groups = found.placement.communities.numpy()
    return {
        "groups": found.n_communities, "slots": found.n_slots,
        "ari": round(float(adjusted_rand_score(y, groups)), 4),
        "nmi": round(float(normalized_mutual_info_score(y, groups)), 4),
        "matched": round(float(found.placement.matched.float().mean()), 4),
        "seconds": round(spent[0], 1), "processor_s": round(spent[1], 1), "peak_mib": peak.bytes >> 20,
    }  # fmt: skip


def _share(vouching) -> float:
    return round(vouching.n_right / max(1, vouching.n_matched), 4)


def _answered(model, name: str, x, y, folder: Path) -> dict[str, float]:
    """A step of a fitted model over the new rows."""
    if name == "predict":
        found = model.predict(x)
        return {"accuracy": float((found.labels == y).mean()), "matched": float(found.matched.mean())}
    if name == "assess_novelty":
        found = model.assess_novelty(x)
        new = y == y.max()
        return {"new_flagged": float(found.novel[new].mean()), "old_flagged": float(found.novel[~new].mean())}
    proposal = model.propose(x, budget=ASKED)
    if name == "propose":
        return {"unmatched": len(proposal.unmatched), "covered": proposal.covered}
    report = model.update(x, {int(q): int(y[q]) for q in proposal.queries}, proposal=proposal)
    model.save(folder / "m")
    new = model.predict(x[: 10 * BLOCK])
    mine = y[: 10 * BLOCK] == y.max()
    return {
        "slots_added": report.slots_added,
        "accuracy_on_the_new_class": float((new.labels == y[: len(mine)])[mine].mean()),
    }


def limited(arguments: argparse.Namespace, place: str, name: str) -> dict[str, float]:
    """A step in a process of its own, under the limit."""
    words = [sys.executable, __file__, "--step", name, "--folder", place, "--limit-gib", str(arguments.limit_gib)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, found, flush=True)
    return found


def steps_of(arguments: argparse.Namespace, place: str, n: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Write ``n`` rows, take the steps, give what came of each."""
    if arguments.graph:
        write_rows(Path(place), "rows", n, arguments.features, arguments.classes, 1)
        yield GRAPH, limited(arguments, place, GRAPH)
        return
    write_rows(Path(place), "old", n, arguments.features, arguments.classes - 1, 1)
    write_rows(Path(place), "new", n, arguments.features, arguments.classes, 2)
    for name in STEPS:
        yield name, limited(arguments, place, name)


def exponents(rows: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, float]]:
    """By which power of the rows each step's processor time grows, from each number of rows to the next."""

    def power(name: str, fewer: str, more: str) -> float:
        taken = rows[more][name]["processor_s"] / rows[fewer][name]["processor_s"]
        return round(math.log(taken) / math.log(int(more) / int(fewer)), 2)

    return [{name: power(name, *pair) for name in rows[pair[0]]} for pair in itertools.pairwise(rows)]


def main() -> None:
    """Write the rows, take the steps, keep what came of it after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000])
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--graph", type=int, nargs="+", help="Numbers of rows among which groups are found instead.")
    parser.add_argument("--limit-gib", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="Where the rows lie in the meantime.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--step", choices=(*STEPS, GRAPH), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        limit = int(arguments.limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        graph = arguments.step == GRAPH
        print(json.dumps(graph_step(arguments.folder) if graph else step(arguments.folder, arguments.step)))
        return
    shape = {"features": arguments.features, "classes": arguments.classes, "limit_gib": arguments.limit_gib}
    what = "Groups among rows on the disk, in four gigabytes." if arguments.graph else __doc__.splitlines()[0]
    result = {"schema": 1, "what": what, **shape, **made_with(__file__, 0, ("torch", "numpy", "numba"))}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for n in arguments.graph or arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
            for name, found in steps_of(arguments, place, n):
                rows.setdefault(str(n), {})[name] = found
                keep({**result, "rows": rows}, arguments.output)
        keep({**result, "rows": rows, "exponents": exponents(rows)}, arguments.output)


if __name__ == "__main__":
    main()
