"""Matching on a GPU: equal to the CPU, and queries a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gpu_bench import Bench, or_error

from slots.head.caps import SlotCaps
from slots.head.decision import decide, matching_pairs
from slots.index.slot_index import SlotIndex

ANSWERED = ("labels", "answers", "slots", "runner_up_slots")
MARGINS = ("margins", "runner_up_margins")


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
        row[name] = or_error(lambda c=call: round(1e3 * len(x) / bench.timed(c, repeats=3)[0]))
    return row


def _gap(found: Any, expected: Any) -> float:
    """Largest difference of margins; infinity where one is missing and the other is not."""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(found)
    return float(np.abs(found[finite] - expected[finite]).max(initial=0.0))
