"""The cover on a GPU: its bare products, its stages, its kernels one by one, and large classes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gpu_bench import Bench, or_error, unfused

from slots.cover.by_class import class_cover
from slots.cover.coverage import cap_thresholds, coverage_bits
from slots.cover.fused import has_fused_kernels
from slots.cover.greedy import greedy_set_cover_packed


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
        found[f"maxima {dataclasses.astuple(tiling)}"] = or_error(lambda c=call: bench.timed(c)[0])
    for tiling in (
        Tiling(depth=32), Tiling(depth=32, stages=4), Tiling(depth=32, warps=4)
    ):  # fmt: skip
        tiles = ClassTiles.of(counts, counts, symmetric=True, tiling=tiling)
        call = partial(packed_coverage, rows, rows, limits, tiles, rounding=1e-12)
        found[f"coverage {dataclasses.astuple(tiling)}"] = or_error(lambda c=call: bench.timed(c)[0])
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
