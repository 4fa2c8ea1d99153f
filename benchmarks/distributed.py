"""One fit by one and by several processes of one thread each, in turns: how much sooner, and whether it is the same.

Run as ``python benchmarks/distributed.py --data mnist --rows 20000 --processes 1 2``; ``SLOTS_DATA_DIR`` says where
named data lies. Every number of processes has its turn in every repeat. Seconds are those of the fit alone, from
when all processes have met: reading the data and starting Python are not its work. Processor seconds are those of the
process that needed most, since a busy machine makes the clock say little. With ``--apart`` as many processes each do
the whole fit at once, in turns with the others: what several processes can gain here at most, since cores share caches
and memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import slots
from protocols.data.loading import load_data
from protocols.provenance import commit, versions
from protocols.recipes.building import build_backbone
from protocols.recipes.planning import plan
from slots.distributed import ALONE, join


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, help="Default: the recipe's.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--apart", action="store_true", help="Also fits that do not share anything, at once.")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    turns = [(size, False) for size in options.processes]
    turns += [(size, True) for size in options.processes[1:]] if options.apart else []
    for repeat in range(options.repeats):
        for size, apart in turns:
            row = {"repeat": repeat, "processes": size, "apart": apart} | _run(size, options, apart=apart)
            rows.append(row)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    ratios = {
        f"{size}": {
            key: statistics.median(
                one[key] / other[key]
                for one, other in zip(_of(rows, options.processes[0]), _of(rows, size), strict=True)
            )
            for key in ("elapsed_s", "processor_s", "training_s", "closing_s")
        }
        for size in options.processes[1:]
    }
    at_most = {
        f"{size}": statistics.median(
            size * one["elapsed_s"] / other["elapsed_s"]
            for one, other in zip(_of(rows, options.processes[0]), _of(rows, size, apart=True), strict=True)
        )
        for size in options.processes[1:]
        if options.apart
    }
    digests = {row["digest"] for row in rows}
    document = {
        "command": " ".join(["python", *sys.argv]), "commit": commit(), "versions": versions(), "cores": os.cpu_count(),
        "rows": rows, "times_sooner": ratios, "at_most": at_most, "same_model": len(digests) == 1,
    }  # fmt: skip
    found = {key: document[key] for key in ("times_sooner", "at_most", "same_model")}
    sys.stdout.write(json.dumps(found) + "\n")
    if options.output:
        options.output.write_text(json.dumps(document, indent=1) + "\n")


def _of(rows: list[dict[str, Any]], size: int, *, apart: bool = False) -> list[dict[str, Any]]:
    return [row for row in rows if row["processes"] == size and row["apart"] == apart]


def _run(size: int, options: argparse.Namespace, *, apart: bool) -> dict[str, Any]:
    """A fit by so many processes, or one by each of them; seconds of the slowest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    workers = [context.Process(target=_work, args=(rank, size, port, options, queue, apart)) for rank in range(size)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = ("elapsed_s", "processor_s", "training_s", "closing_s")
    digests = {it["digest"] for it in found}
    assert len(digests) == 1
    return {key: round(max(it[key] for it in found), 2) for key in seconds} | {
        "slots": found[0]["slots"], "digest": digests.pop(), "load": round(os.getloadavg()[0], 1)
    }  # fmt: skip


def _work(rank: int, size: int, port: int, options: argparse.Namespace, queue: Any, apart: bool) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    where = {"WORLD_SIZE": str(size), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    data = load_data(options.data)
    name, recipe = plan(data, "pixels", {}, epochs=options.epochs, device="cpu")
    data = replace(data, x_train=data.x_train[: options.rows], y_train=data.y_train[: options.rows])
    ranks = join(where)
    ranks.total(torch.zeros(1, dtype=torch.int64))  # all are here
    began, processor = time.perf_counter(), time.process_time()
    marks: dict[str, float] = {}

    def note(step: str, _share: float) -> None:
        if step.startswith("epoch"):
            marks["training"] = time.perf_counter()  # the last one stays

    backbone = build_backbone(name, data, recipe, 0)
    x, y = data.x_train, data.y_train
    model, _ = slots.fit(x, y, backbone=backbone, config=recipe.config, progress=note, ranks=ALONE if apart else ranks)
    end, closing = time.perf_counter(), marks["training"]
    digest = hashlib.sha256()
    for key, value in sorted(model.head.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    queue.put({
        "elapsed_s": end - began,
        "processor_s": time.process_time() - processor,
        "training_s": closing - began,
        "closing_s": end - closing,
        "slots": model.head.n_slots,
        "digest": digest.hexdigest()[:16],
    })  # fmt: skip
    ranks.leave()


if __name__ == "__main__":
    main()
