"""What runs on a GPU, measured in one go: equal to the CPU, and how fast.

    python benchmarks/gpu.py --data-dir FOLDER --output benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny --data-dir FOLDER     # the same code on small data, in two minutes

FOLDER (or SLOTS_DATA_DIR) holds NAME.npz in the layout of mnist.npz. ``--steps`` are env, products, cover, tilings,
large, match, mnist, graph, novelty, explor. One that fails is recorded and the next goes on; after ``--deadline``
seconds none begins. Times are on the clock between two waits for the device, the median of several.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import backbones
from protocols import provenance
from protocols.recipes.recipes import find_recipe
from slots import NoveltyDetector, learn_graph
from slots.cover.by_class import class_cover
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.fused import has_fused_kernels
from slots.cover.greedy import greedy_set_cover_packed
from slots.head.caps import SlotCaps
from slots.head.decision import decide, matching_pairs
from slots.index.slot_index import SlotIndex
from slots.training.fitting import fit

ANSWERED = ("labels", "answers", "slots", "runner_up_slots")
MARGINS = ("margins", "runner_up_margins")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where the measurements run and on what."""

    device: str
    data: Path
    tiny: bool
    started: float
    deadline: float
    save: Path | None

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], Any], *, warm: int = 1, repeats: int = 5) -> tuple[float, Any]:
        """Median milliseconds of a call, and what it returned last."""
        result, found = None, []
        for _ in range(warm):
            result = call()
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            result = call()
            self.wait()
            found.append(1e3 * (time.perf_counter() - start))
        return round(float(np.median(found)), 3), result

    def peak(self, call: Callable[[], Any]) -> tuple[float | None, Any]:
        """Largest GiB of device memory during a call, and what it returned."""
        if not self.device.startswith("cuda"):
            return None, call()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        self.wait()
        return round(torch.cuda.max_memory_allocated() / 2**30, 2), result

    def images(self, name: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (0 to 1) and labels of ``n`` training images, in a seeded order."""
        with np.load(self.data / f"{name}.npz") as archive:
            x, y = archive["x_train"], archive["y_train"]
        order = np.random.default_rng(0).permutation(len(x))[:n]
        pixels = torch.from_numpy(x[order].reshape(len(order), -1).astype(np.float32) / 255)
        return pixels, torch.from_numpy(y[order].astype(np.int64))


def unfused(call: Callable[[], Any]) -> Any:
    """What a call returns without the fused kernels."""
    os.environ["SLOTS_FUSED"] = "0"
    try:
        return call()
    finally:
        del os.environ["SLOTS_FUSED"]


def env(bench: Bench) -> Any:
    """Versions and machine."""
    found = {"versions": provenance.versions("triton"), "machine": provenance.hardware(bench.device)}
    return found | {"fused": has_fused_kernels(torch.device(bench.device))}


def products(bench: Bench) -> Any:
    """The bare products that the cover cannot do without, and how far float16 ones are off."""
    n, d = (2000, 64) if bench.tiny else (50_000, 784)
    x = torch.nn.functional.normalize(torch.rand(n, d, generator=torch.Generator().manual_seed(0))).to(bench.device)

    def half_of_all(rows: torch.Tensor) -> None:
        for i in range(0, n, 8192):
            for j in range(i, n, 8192):
                rows[i : i + 8192] @ rows[j : j + 8192].T

    found: dict[str, Any] = {}
    before = torch.get_float32_matmul_precision()
    for name, precision in (("float32", "highest"), ("tf32", "high")):
        torch.set_float32_matmul_precision(precision)
        found[name] = bench.timed(lambda: half_of_all(x), repeats=3)[0]
    torch.set_float32_matmul_precision(before)
    half = x.half()
    found["float16"] = bench.timed(lambda: half_of_all(half), repeats=3)[0]
    part, rows = half[:4096], x[:4096].double()
    error = torch.mm(part, part.T, out_dtype=torch.float32) if bench.device != "cpu" else part.float() @ part.float().T
    return found | {"float16_max_error": float((error.double() - rows @ rows.T).abs().max())}


def cover(bench: Bench) -> Any:
    """From features to slots: the fused kernels, torch with tiles of two sizes, and the CPU."""
    rows = []
    for name in ("fashion_mnist", "mnist"):
        x, y = bench.images(name, 1500 if bench.tiny else 50_000)
        start = time.perf_counter()
        reference = class_cover(x, y)
        row: dict[str, Any] = {"set": name, "n": len(x), "cpu_s": round(time.perf_counter() - start, 2)}
        row["picks"] = len(reference.picked)
        there, labels = x.to(bench.device), y.to(bench.device)
        row["fused"] = _one_cover(bench, there, labels, None, reference, repeats=7)
        for block in (1024, 8192):
            plain = partial(_one_cover, bench, there, labels, block, reference, repeats=1)
            row[f"torch, tiles of {block}"] = unfused(plain)
        rows.append(row)
    return rows


def _one_cover(
    bench: Bench, x: torch.Tensor, y: torch.Tensor, block: int | None, reference: Any, *, repeats: int
) -> dict[str, Any]:
    """Milliseconds of each stage and of the whole, and whether the outcome is that of the CPU."""
    start = time.perf_counter()
    class_cover(x, y, block=block)
    bench.wait()
    first = time.perf_counter() - start
    stages = {}
    warm = int(repeats > 1)
    stages["thresholds"], thresholds = bench.timed(
        lambda: cap_thresholds(x, y, x, y, block=block), warm=warm, repeats=repeats
    )
    stages["bits"], bits = bench.timed(
        lambda: coverage_bits(x, y, thresholds, x, y, block=block), warm=warm, repeats=repeats
    )
    stages["greedy"], _ = bench.timed(lambda: greedy_set_cover_packed(bits), warm=warm, repeats=repeats)
    whole, _ = bench.timed(lambda: class_cover(x, y, block=block), warm=warm, repeats=repeats)
    peak, found = bench.peak(lambda: class_cover(x, y, block=block))
    same = {
        f"same_{name}": torch.equal(getattr(found, name).cpu(), getattr(reference, name))
        for name in ("picked", "thresholds", "covered", "contradictions")
    }
    return {"first_s": round(first, 2), **stages, "class_cover": whole, "peak_GiB": peak, **same}


def tilings(bench: Bench) -> Any:
    """The fused kernels one by one, and with tiles of other sizes."""
    if not has_fused_kernels(torch.device(bench.device)):
        return "needs a GPU and Triton"
    from slots.cover.fused.rounds import PackedRows
    from slots.cover.fused.scores import SplitRows, near_maxima, packed_coverage
    from slots.cover.fused.tiles import COVERAGE_TILING, ClassTiles, Tiling

    x, y = (part.to(bench.device) for part in bench.images("fashion_mnist", 50_000))
    thresholds = cap_thresholds(x, y, x, y)
    found: dict[str, Any] = {}
    found["sort and split"], rows = bench.timed(lambda: SplitRows.of(x, y))
    counts = torch.bincount(rows.labels).tolist()
    limits = thresholds[rows.order].double()
    for tiling in (Tiling(), Tiling(warps=4), Tiling(warps=4, stages=4)):
        call = partial(near_maxima, rows, rows, symmetric=True, tiling=tiling)
        found[f"maxima {dataclasses.astuple(tiling)}"] = _or_error(lambda c=call: bench.timed(c)[0])
    for tiling in (
        Tiling(depth=32), Tiling(depth=32, stages=4), Tiling(depth=32, warps=4)
    ):  # fmt: skip
        tiles = ClassTiles.of(counts, counts, symmetric=True, tiling=tiling)
        call = partial(packed_coverage, rows, rows, limits, tiles, rounding=1e-12)
        found[f"coverage {dataclasses.astuple(tiling)}"] = _or_error(lambda c=call: bench.timed(c)[0])
    tiles = ClassTiles.of(counts, counts, symmetric=True, tiling=COVERAGE_TILING)
    words = packed_coverage(rows, rows, limits, tiles, rounding=1e-12)
    found["packed rows"], packed = bench.timed(lambda: PackedRows(words))
    found["rounds"], gains = bench.timed(packed.greedy)
    chosen = gains.nonzero()[:, 0]
    found["union"] = bench.timed(lambda: packed.bits_of(packed.union(chosen)))[0]
    i, _ = near_maxima(rows, rows, symmetric=True)
    profile = _kernels(lambda: class_cover(x, y))
    return found | {"pairs computed again a row": round(len(i) / len(x), 2), "kernels": profile}


def _kernels(call: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds on the device of the costliest kernels of a call, launches and waits, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    events = seen.key_averages()
    count = {
        kind: sum(event.count for event in events if any(part in event.key for part in parts))
        for kind, parts in {
            "launches": ("cudaLaunchKernel", "cuLaunchKernel"),
            "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize"),
            "copies": ("cudaMemcpyAsync",),
        }.items()
    }
    costly = sorted(events, key=lambda event: -event.self_device_time_total)[:14]
    return count | {
        event.key[:70]: [event.count, round(event.self_device_time_total / 1e3, 3)]
        for event in costly
        if event.self_device_time_total
    }


def _or_error(call: Callable[[], Any]) -> Any:
    """What a call returns, or what it died of."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return repr(error)[:200]


def large(bench: Bench) -> Any:
    """One class of 70,000 beside another, and 200,000 examples of 1,000 classes."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    for n, classes, d in ((700, 2, 32), (2000, 50, 32)) if bench.tiny else ((80_000, 2, 256), (200_000, 1000, 512)):
        x = torch.randn(n, d, generator=generator).to(bench.device)
        y = torch.randint(0, classes, (n,), generator=generator)
        if classes == 2:
            y = (torch.arange(n) >= n * 7 // 8).long()
        y = y.to(bench.device)
        whole = partial(class_cover, x, y)
        time_ms, found = bench.timed(whole, repeats=2)
        peak, _ = bench.peak(whole)
        rows.append({"n": n, "classes": classes, "d": d, "ms": time_ms, "picks": len(found.picked), "peak_GiB": peak})
    return rows


def match(bench: Bench) -> Any:
    """Queries a second of the index and of the plain rule, beside a bare product with its maximum."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    rows = []
    for d in (64, 784):
        for n in (1000,) if bench.tiny else (1000, 10_000, 100_000):
            w = unit(torch.randn(n, d, generator=generator))
            caps = SlotCaps(
                w,
                unit(w + 0.3 * unit(torch.randn(n, d, generator=generator))),
                torch.rand(n, generator=generator) * 0.4 + 0.5,
                torch.rand(n, generator=generator) * 0.4 + 0.5,
                torch.randint(0, 20, (n,), generator=generator),
                torch.zeros(n, dtype=torch.long),
                torch.ones(n, dtype=torch.bool),
                20.0,
            )
            q = 256 if bench.tiny else (16_384 if n <= 10_000 else 4096)
            near = torch.rand(q, 1, generator=generator) * 0.7 + 0.3
            away = unit(torch.randn(q, d, generator=generator))
            x = (near * w[torch.randint(0, n, (q,), generator=generator)] + (1 - near**2).sqrt() * away)[:, None]
            rows.append({"d": d, "slots": n, "queries": q, **_one_match(bench, caps, x)})
    return rows


def _one_match(bench: Bench, caps: SlotCaps, x: torch.Tensor) -> dict[str, Any]:
    """Equality with the CPU on some queries, and queries a second."""
    there = SlotCaps(
        **{
            key: value.to(bench.device) if isinstance(value, torch.Tensor) else value
            for key, value in vars(caps).items()
        }
    )
    queries, few = x.to(bench.device), min(256, len(x))
    build, index = bench.timed(lambda: SlotIndex(there), warm=0, repeats=1)
    pairs = zip(index.matching_pairs(queries[:few]), matching_pairs(x[:few], caps), strict=True)
    answers, expected = decide(queries[:few], there), decide(x[:few], caps)
    row: dict[str, Any] = {
        "build_ms": build,
        "same_pairs": all(torch.equal(a.cpu(), b) for a, b in pairs),
        **{f"same_{key}": np.array_equal(getattr(answers, key), getattr(expected, key)) for key in ANSWERED},
        "margins_off_by": max(_gap(getattr(answers, key), getattr(expected, key)) for key in MARGINS),
    }
    step = max(1, (1 << 28) // len(caps.weights))
    blocks = [slice(i, i + step) for i in range(0, len(x), step)]
    for name, call in {
        "index.pairs": lambda: index.matching_pairs(queries),
        "index.predict": lambda: index.predict(queries),
        "decide": lambda: [decide(queries[part], there) for part in blocks],
        "product and maximum": lambda: [(queries[part, 0] @ there.weights.T).amax(1) for part in blocks],
    }.items():
        row[name] = _or_error(lambda c=call: round(1e3 * len(x) / bench.timed(c, repeats=3)[0]))
    return row


def _gap(found: Any, expected: Any) -> float:
    """Largest difference of margins; infinity where one is missing and the other is not."""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(found)
    return float(np.abs(found[finite] - expected[finite]).max(initial=0.0))


def graph(bench: Bench) -> Any:
    """Communities without labels: the same on both devices, and twice the same."""
    x, _ = bench.images("mnist", 1500 if bench.tiny else 50_000)
    there = x.to(bench.device)
    ours, first = bench.timed(lambda: learn_graph(there), warm=0, repeats=1)
    again = learn_graph(there)
    start = time.perf_counter()
    reference = learn_graph(x)
    communities = first.placement.communities
    return {
        "s": ours / 1e3,
        "cpu_s": round(time.perf_counter() - start, 2),
        "same_twice": torch.equal(communities, again.placement.communities),
        "same_as_cpu": torch.equal(communities.cpu(), reference.placement.communities),
        "communities": first.n_communities,
    }


def novelty(bench: Bench) -> Any:
    """Fit of a detector."""
    x, _ = bench.images("mnist", 1500 if bench.tiny else 50_000)
    there = x.to(bench.device)
    return {
        "fit_s": bench.timed(lambda: NoveltyDetector(100 if bench.tiny else 500).fit(there), warm=0, repeats=1)[0] / 1e3
    }


def mnist(bench: Bench) -> Any:
    """The whole fit of MNIST pixels."""
    return _fit(bench, "mnist", "pixels", 1500 if bench.tiny else None, 2 if bench.tiny else None)


def explor(bench: Bench) -> Any:
    """The whole fit of `explor` on CIFAR-10, with the recipe for GPUs."""
    return _fit(bench, "cifar10", "explor", 300 if bench.tiny else None, 1 if bench.tiny else None)


def _fit(bench: Bench, data: str, backbone: str, n: int | None, epochs: int | None) -> dict[str, Any]:
    """Fit with the recipe, stop in time, answer the test part."""
    recipe = find_recipe(backbone, data, bench.device)
    config = dataclasses.replace(recipe.train, device=bench.device, **({} if epochs is None else {"epochs": epochs}))
    with np.load(bench.data / f"{data}.npz") as archive:
        x, y = archive["x_train"][:n], archive["y_train"][:n].astype(np.int64)
        x_test, y_test = archive["x_test"], archive["y_test"]
    x_test, y_test = (x_test[:200], y_test[:200]) if bench.tiny else (x_test, y_test)
    shape = (3, 32, 32) if x.ndim == 4 else (1, *x.shape[1:])
    phases: dict[str, float] = {}
    last = ["start", time.perf_counter()]

    def progress(step: str, _share: float) -> None:
        name = step.split(" ", maxsplit=1)[0]
        if name != last[0]:
            bench.wait()
            now = time.perf_counter()
            phases[last[0]] = round(phases.get(last[0], 0.0) + now - last[1], 2)
            last[:] = [name, now]

    stop_at = bench.started + bench.deadline - 45
    net = backbones.build(backbone, input_shape=shape, **recipe.backbone)
    start = time.perf_counter()
    model, result = fit(
        x, y, backbone=net, config=config, progress=progress, stop=lambda: time.perf_counter() > stop_at
    )
    bench.wait()
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    answers = model.predict(x_test)
    bench.wait()
    per_s = len(x_test) / (time.perf_counter() - start)
    right = answers.labels == y_test
    if bench.save is not None:
        model.save(bench.save / f"{backbone}-{data}")
    return {
        "fit_s": round(fitted, 2),
        "epochs": result.epochs,
        "interrupted": result.interrupted,
        "losses": [round(loss, 4) for loss in result.losses],
        "phases_s": phases,
        "slots": model.head.n_slots,
        "accuracy": round(100 * float(right.mean()), 2),
        "matched": round(100 * float(answers.matched.mean()), 2),
        "right_when_matched": round(100 * float(right[answers.matched].mean()), 2) if answers.matched.any() else None,
        "predicted_per_s": round(per_s),
        "options": recipe.backbone,
    }


STEPS = {step.__name__: step for step in (env, products, cover, tilings, large, match, mnist, graph, novelty, explor)}


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
