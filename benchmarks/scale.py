"""What 1e8 and 1e9 embeddings would move and take on 64 GPUs: computed from what one GPU was measured at.

    python benchmarks/scale.py                 # write the table into docs/scale.md
    python benchmarks/scale.py --check         # exit 1 if it is stale

Nothing here runs on more than one machine: each figure is a count of operations or bytes over a rate. The rates of the
GPU are read from ``results/gpu.json``, that of one processor from ``results/bulk.json``; those of networks and disks
are assumptions, and stand below the tables.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scale.md"
MARKS = ("<!-- scale -->", "<!-- end -->")

D = 512  # features
N_GPUS = 64
CLASSES = 1000
ROUNDS = 40  # of the greedy; prototypes needed 12 to 19 with 5,000 to 20,000 candidates
NETWORK = {"NCCL": (10e-6, 25e9), "gloo": (50e-6, 2.5e9)}  # seconds a message, bytes a second
DISK = 5e9  # bytes a second that a node's GPUs read together; eight GPUs a node
SUMS = 16  # bytes a candidate and round: two sums of int64
MEMORY = 2e12  # bytes a second that a GPU reads of its own memory
BATCH = 8192  # examples of a training step, all processes together


@dataclass(frozen=True)
class Rates:
    """What one GPU does in a second, measured.

    Parameters
    ----------
    thresholds, bits : float
        Operations of the fused kernels: a multiplication and an addition count two.
    answers : float
        Operations of `decide` where slots are most, which the host holds back.
    product : float
        Operations of a bare float32 product.
    """

    thresholds: float
    bits: float
    answers: float
    product: float


def measured() -> Rates:
    """Rates of the newest record of each step."""
    runs = json.loads((RESULTS / "gpu.json").read_text())["runs"]

    def step(name):
        return next(run["steps"][name]["result"] for run in runs if name in run["steps"])

    cover = next(it for it in step("cover") if it["set"] == "fashion_mnist")
    half = cover["n"] ** 2 * 784  # half of the matrix, two operations a pair and feature
    match = max(step("match"), key=lambda it: (it["slots"], it["d"]))
    return Rates(
        thresholds=half / (cover["fused"]["thresholds"] / 1e3),
        bits=half / 10 / (cover["fused"]["bits"] / 1e3),  # each class with itself: a tenth
        answers=match["decide"] * match["slots"] * match["d"] * 2,
        product=half / (step("products")["float32"] / 1e3),
    )


def rows(rates: Rates, n: float, slots: float) -> list[tuple[str, str, str, str]]:
    """Step, work, what travels, and seconds on all GPUs, for so many embeddings and slots."""
    pairs = 2.0 * n * slots * D
    a, b = NETWORK["NCCL"], NETWORK["gloo"]
    reading = n * D * 2 / (DISK * N_GPUS / 8)
    packed = n * slots / CLASSES / 8 / N_GPUS
    rounds = [ROUNDS * (2 * latency + SUMS * slots / speed + packed / MEMORY) for latency, speed in (a, b)]
    own = n * n * D  # every example a candidate; half by symmetry
    gather = [latency + BATCH * CLASSES * 4 / speed for latency, speed in (a, b)]
    return [
        ("read the features, float16", size(n * D * 2), "nothing", seconds(reading)),
        (
            "answer all (`predict`, `ood`) at the measured rate",
            power(pairs),
            "nothing",
            seconds(pairs / rates.answers / N_GPUS),
        ),
        (
            "the same at the rate of a bare float32 product",
            power(pairs),
            "nothing",
            seconds(pairs / rates.product / N_GPUS),
        ),
        (
            "exact thresholds of the slots",
            power(pairs),
            f"one maximum a slot: {size(4 * slots)}",
            seconds(pairs / rates.thresholds / N_GPUS + a[0] + 4 * slots / a[1]),
        ),
        (
            "which examples of its class each covers, as bits",
            power(pairs / CLASSES),
            "nothing",
            seconds(pairs / CLASSES / rates.bits / N_GPUS),
        ),
        (
            f"exact greedy among as many candidates, {ROUNDS} rounds",
            f"{size(packed)} of bits a GPU, read once a round",
            f"{size(ROUNDS * SUMS * slots)}: two sums a candidate and round",
            f"{seconds(rounds[0])} ({seconds(rounds[1])} by gloo)",
        ),
        (
            "cover with every example a candidate (`class_cover`)",
            f"{power(own)}, {size(n * n / 8 / CLASSES / N_GPUS)} of bits a GPU",
            f"the features once round, float32: {size(n * D * 4)} a GPU",
            seconds(own / rates.thresholds / N_GPUS + n * D * 4 / a[1]),
        ),
        (
            f"a training step, {BATCH:,} examples",
            power(6.0 * BATCH * slots * D),
            f"pooled scores, one an example and class: {size(BATCH * CLASSES * 4)}",
            f"{seconds(6.0 * BATCH * slots * D / rates.product / N_GPUS + gather[0])} "
            f"({seconds(6.0 * BATCH * slots * D / rates.product / N_GPUS + gather[1])} by gloo)",
        ),
    ]


def power(count: float) -> str:
    """Operations in words."""
    digits, exponent = f"{count:.1e}".split("e")
    return f"{digits} x 10<sup>{int(exponent)}</sup> operations"


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def seconds(time: float) -> str:
    """A duration in words."""
    for limit, unit, over in ((1e-1, "ms", 1e-3), (120, "s", 1), (7200, "min", 60)):
        if time < limit:
            return f"{time / over:.2g} {unit}"
    return f"{time / 3600:.2g} h"


def table() -> str:
    """The part of the page between the marks."""
    rates, alone = measured(), json.loads((RESULTS / "bulk.json").read_text())
    said = []
    for n, slots in ((1e8, 1e6), (1e9, 1e6), (1e9, 1e5)):
        said += [
            "",
            f"**{n:,.0f} embeddings, {slots:,.0f} slots**",
            "",
            "| step | work | travels | on all GPUs |",
            "|---|---|---|---|",
        ]
        said += [f"| {' | '.join(row)} |" for row in rows(rates, n, slots)]
    (wait, speed), (gloo_wait, gloo_speed) = NETWORK["NCCL"], NETWORK["gloo"]
    said += [
        "",
        f"Rates of one GPU, from [gpu.json](../benchmarks/results/gpu.json): thresholds {rates.thresholds / 1e12:.0f}, "
        f"bits {rates.bits / 1e12:.0f}, bare float32 product {rates.product / 1e12:.0f}, answers "
        f"{rates.answers / 1e12:.1f} TFLOP a second.",
        f"Assumed: {CLASSES:,} classes of the same size; between GPUs {speed / 1e9:.0f} GB/s and {wait * 1e6:.0f} "
        f"microseconds a message ({gloo_speed / 1e9} GB/s and {gloo_wait * 1e6:.0f} by gloo);",
        f"{DISK / 1e9:.0f} GB/s of disk for each eight GPUs; {MEMORY / 1e12:.0f} TB/s of a GPU's own memory.",
        f"One processor core answers {alone['rows'] / alone['alone']['elapsed_s']:,.0f} rows of {alone['features']} "
        f"features a second by {alone['slots']} slots ([bulk.json](../benchmarks/results/bulk.json)).",
        "",
    ]
    return "\n".join(said)


def main():
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text()
    between = re.compile(f"(?<={MARKS[0]}\n).*?(?={MARKS[1]})", re.DOTALL)
    made = between.sub(lambda _: table(), page)
    if not arguments.check:
        PAGE.write_text(made)
    elif made != page:
        sys.exit("docs/scale.md is stale: run python benchmarks/scale.py")


if __name__ == "__main__":
    main()
