"""What a service bears: slow clients, bombs, ten times what it can do, and a stop under load.

    python benchmarks/service_limits.py --output benchmarks/results/service_limits.json

Each part starts `slots serve` as a process of its own on a model of three blobs, with the default limits, and looks at
the process's memory through /proc. The clients run on the same machine. `--slow 1000` connections send nothing,
headers, a body or chunks byte by byte, a whole request and then half a one, or do not read what they ask for; meanwhile
others are answered. The bombs are those of ``tests/support/bombs.py``, twice in a row. The overload is 120 clients with
400 rows each where 4,096 rows may wait, for `--seconds`. The stop is a SIGTERM with 30 clients, two streams and a
running update.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np

from protocols.provenance import commit, processor, versions

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.bombs import SMALL, all_of_them, picture_model
from support.pressure import PREDICT, load, post
from support.served_process import served
from support.service import small_model
from support.slow_clients import KINDS, close, connect, watch
from support.stopping import ROW, stopped_under_load

MANY = {"inputs": [[3.0, 0, 0, 0, 0, 0]] * 400}


def milliseconds(ledger):
    """Median, 99th percentile and the longest."""
    shares = {"median_ms": 0.5, "p99_ms": 0.99, "longest_ms": 1.0}
    return {name: round(1e3 * ledger.quantile(share), 1) for name, share in shares.items()}


def ask(port, clients, seconds):
    """One row again and again, in a process of its own: statuses and times."""
    found = asyncio.run(load(port, post(PREDICT, ROW), clients, seconds))
    return {"statuses": dict(found.statuses), "unanswered": len(found.unanswered), **milliseconds(found)}


def slow_clients(folder, n):
    """Seconds until each kind of slow client is closed, and how others fare with and without them."""
    with served(f"small={folder}/small", "--data", folder / "slow") as it, get_context("fork").Pool(1) as others:
        others.apply(ask, (it.port, 8, 2))
        alone = others.apply(ask, (it.port, 8, 14))
        it.forget_peak()
        before = it.memory()
        clients = [connect(("127.0.0.1", it.port), KINDS[place % len(KINDS)]) for place in range(n)]
        beside = others.apply_async(ask, (it.port, 8, 14))
        looks = [time.monotonic()]
        watch(clients, 40, between=lambda: looks.append(time.monotonic()))
        close(clients)
        took = {
            kind: sorted(round(c.closed - c.since, 2) for c in clients if c.kind == kind and c.closed is not None)
            for kind in KINDS
        }
        return {
            "connections": n,
            "closed": sum(map(len, took.values())),
            "seconds_median": {kind: found[len(found) // 2] for kind, found in took.items() if found},
            "seconds_at_most": {kind: found[-1] for kind, found in took.items() if found},
            "seconds_between_two_looks_at_most": round(float(np.diff(looks).max()), 2),
            "others_alone": alone,
            "others_beside": beside.get(),
            "memory_growth_mb": round((it.memory("VmHWM") - before) / 1e6, 1),
        }


def bombs(folder):
    """Statuses, and the largest growth of memory while one of them is refused."""
    found, growth = Counter(), {}
    models = (f"small={folder}/small", folder / "pictures")
    with served(*models, "--data", folder / "bombs") as it, httpx.Client(base_url=it.address, timeout=60) as client:
        for _ in range(3):
            client.post(f"{SMALL}/predict", json=MANY)
        first, kept, slowest = it.memory(), [], 0.0
        for _ in range(2):
            for bomb in all_of_them():
                it.forget_peak()
                before, began = it.memory(), time.monotonic()
                status = client.request(bomb.method, bomb.path, content=bomb.body, headers=bomb.headers).status_code
                slowest = max(slowest, time.monotonic() - began)
                found[status if status in bomb.statuses else f"{bomb.name}: {status}"] += 1
                growth[bomb.name] = max(growth.get(bomb.name, 0.0), round((it.memory("VmHWM") - before) / 1e6, 1))
            kept.append(round((it.memory() - first) / 1e6, 1))
    most = sorted(growth, key=growth.get, reverse=True)[:5]
    return {
        "requests": 2 * len(growth),
        "statuses": {str(status): count for status, count in found.items()},
        "largest_growth_mb": {name: growth[name] for name in most},
        "growth_after_all_of_them_once_and_twice_mb": kept,
        "slowest_s": round(slowest, 2),
    }


def overload(folder, seconds):
    """Statuses and times under ten times what may wait; what a single request takes afterwards."""
    with served(f"small={folder}/small", "--data", folder / "overload") as it:
        asyncio.run(load(it.port, post(PREDICT, MANY), 4, 2))
        normal = asyncio.run(load(it.port, post(PREDICT, MANY), 8, 5))
        it.forget_peak()
        before = it.memory()
        found = asyncio.run(load(it.port, post(PREDICT, MANY), 120, seconds))
        growth = it.memory("VmHWM") - before
        began = time.monotonic()
        status = httpx.post(f"{it.address}{PREDICT}", json=ROW).status_code
        return {
            "seconds": seconds,
            "statuses": dict(found.statuses),
            "without_retry_after": found.without_hint,
            "unanswered": len(found.unanswered),
            "answered_under_it": milliseconds(found),
            "answered_by_8_clients": milliseconds(normal),
            "memory_growth_mb": round(growth / 1e6, 1),
            "afterwards": {"status": status, "ms": round(1e3 * (time.monotonic() - began), 1)},
        }


def stop(folder):
    """A SIGTERM under load, with streams and a job: what became of the requests, and how long it took."""
    data = folder / "stop"
    data.mkdir()
    found = stopped_under_load(folder / "small", data, lambda _: asyncio.sleep(2))
    return {
        "exit_status": found.code,
        "seconds": round(found.seconds, 2),
        "statuses": dict(found.ledger.statuses),
        "unanswered": len(found.ledger.unanswered),
        "streams_ended": len(found.ended),
    }


def main():
    """Measure all four, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=1000, help="Slow connections.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Of overload.")
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, began = os.getloadavg(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model(folder / "small")
        picture_model(folder / "pictures")
        parts = {}
        for part, work in (
            ("slow_clients", lambda: slow_clients(folder, arguments.slow)),
            ("bombs", lambda: bombs(folder)),
            ("overload", lambda: overload(folder, arguments.seconds)),
        ):
            parts[part] = work()
            print(part, json.dumps(parts[part], indent=1), flush=True)
        parts["stops"] = []
        for place in range(arguments.stops):
            own = folder / f"stop {place}"
            own.mkdir()
            small_model(own / "small")
            parts["stops"].append(stop(own))
            print(json.dumps(parts["stops"][-1]), flush=True)
    result = {
        "schema": 1,
        "what": "what a service bears: slow clients, bombs, ten times what it can do, a stop under load",
        "command": " ".join(["python", "benchmarks/service_limits.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": versions("fastapi", "uvicorn", "httptools", "pydantic"),
        "open_files": {"soft": soft, "hard": hard},
        "load_average": {"before": [round(it, 1) for it in before], "after": [round(it, 1) for it in os.getloadavg()]},
        "elapsed_s": round(time.monotonic() - began, 1),
        **parts,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
