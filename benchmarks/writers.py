"""A hundred processes that write one model at the same time: every acknowledged change is in, and none is in twice.

    python benchmarks/writers.py --writers 100 --output benchmarks/results/writers.json

Each writer is a process with the command line of `slots relabel` or `slots update`, a fork of one that has imported
everything, so that a hundred fit in memory; they begin together and wait for the lock with ``--wait``. A relabel
names one slot, an update brings rows that nothing matched; so at the end it is seen of each whether it is in.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from protocols.commands import main as command
from protocols.provenance import commit, processor
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation, log

WAIT_S = 600


def near(axis, count, width, rng):
    """Unit rows around one axis."""
    noise = torch.from_numpy(rng.normal(size=(count, width))).float()
    rows = torch.eye(width)[axis] + 0.2 / width**0.5 * noise
    return normalize(rows)


def prepare(root, writers, every):
    """A model with a slot for each relabel, and rows around an axis of its own for each update."""
    width, rng = writers + 8, np.random.default_rng(0)
    head = IncrementalNeuralHashing(feature_dim=width)
    head.add_slots(
        torch.eye(width)[:writers], torch.arange(writers) % 3, support_thresholds=torch.full((writers,), 0.85)
    )
    model = SlotModel(Preprocessing("features", (width,)), head, class_names=["cat", "dog", "bird"])
    model.exemplar_features = torch.stack([near(axis, 4, width, rng) for axis in range(writers)]).half()
    model.history.append(Generation(0, "fit", writers, {}))
    updates = list(range(0, writers, every))[: width - writers]
    model.save(root / "model")
    for number, writer in enumerate(updates):
        rows = near(writers + number, 12, width, rng).numpy()
        np.savez(root / f"{writer}.npz", x_train=rows, y_train=np.zeros(12, dtype=int))
    return updates


def words(root, writer, updates):
    """Command line of a writer."""
    waiting = ["--wait", str(WAIT_S)]
    if writer in updates:
        return ["update", f"{root}/model", "--data", f"{root}/{writer}.npz", *waiting]
    return ["relabel", f"{root}/model", "--slots", str(writer), "--label", f"by {writer}", *waiting]


def fork(root, writer, updates, gate):
    """Start a writer, which waits at the gate."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.close(gate[1])
        for stream, name in ((1, os.devnull), (2, root / f"{writer}.said")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.read(gate[0], 1)  # ends when the parent closes its side
        command(words(root, writer, updates))
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(status)


def available_mib():
    """Memory that is free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) >> 10


def write_together(root, writers, every):
    """Let all write, and see of each change whether it is in."""
    updates = prepare(root, writers, every)
    gate, started, free = os.pipe(), time.monotonic(), available_mib()
    children = {fork(root, writer, updates, gate): writer for writer in range(writers)}
    os.close(gate[1])
    least, ended = free, {}
    while len(ended) < writers:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            ended[children[child]] = os.waitstatus_to_exitcode(status)
        else:
            least = min(least, available_mib())
            time.sleep(0.02)
    os.close(gate[0])
    model, lines = SlotModel.load(root / "model"), log(root / "model")
    names = [model.class_name(label) for label in model.head.labels.tolist()]
    there, lost, again = set(), [], 0
    for writer in range(writers):
        if writer in updates:
            rows = np.load(root / f"{writer}.npz")["x_train"]
            is_in = bool(model.predict(rows).matched.all())
        else:
            is_in = names[writer] == f"by {writer}"
        there |= {writer} if is_in else set()
        lost += [] if is_in or ended[writer] else [writer]
        again += "planning again" in (root / f"{writer}.said").read_text()
    done = sum(status == 0 for status in ended.values())
    if lost or [it.number for it in lines] != list(range(len(lines))) or len(lines) != 1 + done or len(there) != done:
        raise AssertionError(f"lost {lost}; {done} acknowledged, {len(there)} there, {len(lines)} lines: {ended}")
    return {
        "writers": writers,
        "relabels": writers - len(updates),
        "updates": len(updates),
        "acknowledged": done,
        "acknowledged_and_lost": len(lost),
        "planned_again": again,
        "statuses": dict(Counter(map(str, ended.values()))),
        "memory_taken_mib": free - least,
        "largest_writer_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def warm_up(root):
    """Import and compile everything in this process."""
    root.mkdir()
    updates = prepare(root, 4, 4)
    for writer in range(2):
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            command(words(root, writer, updates))
    if len(log(root / "model")) != 3:
        raise AssertionError("the commands do not work undisturbed")


def main():
    """Write together, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=100)
    parser.add_argument("--every", type=int, default=13, help="Every so many is an update; the others relabel.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        warm_up(root / "warm")
        (root / "all").mkdir()
        found = write_together(root / "all", arguments.writers, arguments.every)
    result = {
        "schema": 1,
        "what": "processes that write one model at the same time; stops where an acknowledged change is not in",
        "command": " ".join(["python", "benchmarks/writers.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numpy", "filelock")},
        **found,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
