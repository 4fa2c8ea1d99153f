"""What runs on a GPU, measured in one go: equal to the CPU, and how fast.

    python benchmarks/gpu.py --data-dir FOLDER --output benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny --data-dir FOLDER     # the same code on small data, in two minutes

FOLDER (or SLOTS_DATA_DIR) holds NAME.npz in the layout of mnist.npz. ``--steps`` are env, products, cover, tilings,
large, match, mnist, recorded, graph, novelty, agreement, commands, explor. One that fails is recorded and the next goes
on; after ``--deadline`` seconds none begins. Times are on the clock between two waits for the device, the median of
several.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from gpu_agreement import agreement, commands
from gpu_bench import Bench
from gpu_cover import cover, large, products, tilings
from gpu_fits import explor, graph, mnist, novelty, recorded
from gpu_matching import match

from protocols import provenance
from slots.cover.fused import has_fused_kernels


def env(bench: Bench) -> Any:
    """Versions and machine."""
    found = {"versions": provenance.versions("triton"), "machine": provenance.hardware(bench.device)}
    return found | {"fused": has_fused_kernels(torch.device(bench.device))}


STEPS = {
    step.__name__: step
    for step in (
        env, products, cover, tilings, large, match, mnist, recorded, graph, novelty, agreement, commands, explor,
    )
}  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--deadline", type=float, default=540.0, help="seconds after which no further step begins")
    parser.add_argument("--commit", default=provenance.commit(), help="commit of the code, where git cannot tell")
    parser.add_argument("--save", type=Path, help="folder for the fitted models")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    if asked.data_dir is None:
        parser.error("--data-dir or SLOTS_DATA_DIR is needed")
    bench = Bench(asked.device, asked.data_dir, asked.tiny, time.perf_counter(), asked.deadline, asked.save)
    result: dict[str, Any] = {
        "schema": 1,
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "commit": asked.commit,
        "steps": {},
    }
    for name in asked.steps:
        start = time.perf_counter()
        try:
            value = STEPS[name](bench)
        except Exception as error:  # noqa: BLE001  # the next step may work
            value = {"failed": repr(error)[:400], "where": traceback.format_exc()[-800:]}
        result["steps"][name] = {"s": round(time.perf_counter() - start, 1), "result": value}
        print(json.dumps({name: result["steps"][name]}), flush=True)
        if asked.output:
            asked.output.parent.mkdir(parents=True, exist_ok=True)
            asked.output.write_text(json.dumps(result, indent=1) + "\n")
        if time.perf_counter() - bench.started > bench.deadline:
            print("deadline", flush=True)
            break


if __name__ == "__main__":
    main()
