"""How fast `slots serve` answers and keeps: in batches and one by one, beside a route that does nothing.

    python benchmarks/service.py --output benchmarks/results/service.json

A model of scikit-learn's digits (rows of 64 numbers) is served three times, each a `slots serve` of its own: as it is,
with `--batch-rows 1`, and with a writer that commits each request by itself. Every round asks all cases one after the
other, each second round backwards, so that whatever else the machine does meets all of them; the figures are medians
over the rounds, and ratios are made within a round. `--before` names another checkout whose code is asked beside this.
The clients are a process of their own on the same machine (`tests/support/load.py`); what they cost is said beside each
case. At the end the databases must hold every item that was acknowledged.
"""

import argparse
import base64
import io
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import backbones
from protocols.data import load_data
from protocols.provenance import commit, processor, versions
from slots.training import TrainConfig, fit

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.load import Load, Order, drive
from support.served_process import COMMAND, served

ONE_A_COMMIT = (
    "-c",
    "import sys; from protocols.service.inbox import database; database._TOGETHER = 1; "
    "from protocols.commands import main; main(sys.argv[1:])",
)
SERVICES = {
    "batched": ((), COMMAND),
    "single": (("--batch-rows", "1"), COMMAND),
    "one_a_commit": ((), ONE_A_COMMIT),
}
"""Options and program of each."""
ROWS, IMAGES = "/api/v1/models/digits", "/api/v1/models/images"
INFER = "/v2/models/digits/infer"


@dataclass
class Case:
    """One way to ask one of the services."""

    name: str
    service: str
    connections: int
    path: str
    bodies: list = field(default_factory=lambda: [""])
    inputs: int = 1
    """Of each request (count)."""
    new: bool = False
    """Whether each request is an item that was never sent before."""
    headers: dict = field(default_factory=dict)
    media: str = "application/json"
    asked: int = 0
    """Requests, those of the warm-up as well (count)."""
    loads: list[Load] = field(default_factory=list)
    busy: list = field(default_factory=list)
    """Processor time of the service for each answer (seconds)."""


def models(folder):
    """Digits as rows of numbers, and as images."""
    data = load_data("digits")
    config = TrainConfig(epochs=10, batch_size=100, slots_per_class=8, held_out=0.2)
    rows = data.x_train.reshape(len(data.x_train), -1).astype(np.float32)
    fit(rows, data.y_train, config=config)[0].save(folder / "digits")
    pixels = backbones.build("pixels", input_shape=(1, 8, 8))
    fit(data.x_train, data.y_train, backbone=pixels, config=config)[0].save(folder / "images")
    return data.x_test


def binary(rows):
    """A request of the Open Inference Protocol whose input is binary, its body and headers."""
    raw = np.ascontiguousarray(rows, np.float32).tobytes()
    wanted = ("label_id", "answer", "slot", "margin", "p_value")
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "datatype": "FP32",
                    "shape": list(rows.shape),
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in wanted],
        }
    ).encode()
    return (head + raw).decode("latin-1"), {"Inference-Header-Content-Length": str(len(head))}


def png(image):
    """An image as JSON carries it."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def cases(images):
    """All of them, in the order of the first round."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    listed = rows.astype(int).tolist()
    ones = [json.dumps({"inputs": [row]}) for row in listed]
    blocks = [listed[start : start + 64] for start in range(0, 320, 64)]
    packed = [binary(rows[start : start + 64]) for start in range(0, 320, 64)]
    single = [binary(rows[place : place + 1]) for place in range(len(rows))]
    asked = [
        Case(f"predict, c={connections}, {service}", service, connections, f"{ROWS}/predict", ones)
        for connections in (1, 8, 32)
        for service in ("batched", "single")
    ]
    many = [json.dumps({"inputs": it}) for it in blocks]
    return [
        Case("live, c=8", "batched", 8, "/v2/health/live"),
        *asked,
        Case("64 rows, c=8", "batched", 8, f"{ROWS}/predict", many, 64),
        Case("64 rows, binary, c=8", "batched", 8, INFER, [it for it, _ in packed], 64, headers=packed[0][1]),
        Case("1 row, binary, c=8", "batched", 8, INFER, [it for it, _ in single], headers=single[0][1]),
        Case("1 image, c=8", "batched", 8, f"{IMAGES}/predict", [json.dumps({"inputs": [png(it)]}) for it in images]),
        Case("items, c=1, shared commits", "batched", 1, f"{ROWS}/items", ones, new=True),
        Case("items, c=64, shared commits", "batched", 64, f"{ROWS}/items", ones, new=True),
        Case("items, c=64, a commit each", "one_a_commit", 64, f"{ROWS}/items", ones, new=True),
    ]


def before(asked):
    """The same cases for the code of another checkout, where they are those that matter."""
    named = ("predict, c=8, batched", "predict, c=32, batched", "64 rows, c=8", "items, c=64, shared commits")
    return [
        replace(it, name=f"{it.name}, before", service="before", asked=0, loads=[], busy=[])
        for it in asked
        if it.name in named
    ]


def of_checkout(folder):
    """Program of the code that lies in another folder."""
    return (
        "-c",
        f"import sys; sys.path.insert(0, {str(folder.resolve())!r}); "
        "from protocols.commands import main; main(sys.argv[1:])",
    )


def ask(case, it, seconds, numbers, *, counts=True):
    """One load of a case, with the processor time that the service took; it may only be there to warm up."""
    bodies = case.bodies
    if case.new:
        most = round(4000 * (seconds + 1))  # more than it can answer
        bodies = [
            f'{bodies[n % len(bodies)][:-1]}, "ids": ["item {next(numbers)}"], "store": "all"}}' for n in range(most)
        ]
    until = it.busy()
    order = Order(
        it.port, case.path, case.connections, seconds, "POST" if case.bodies != [""] else "GET", bodies, case.media,
        case.headers,
    )  # fmt: skip
    load = drive(order)
    case.asked += load.asked
    if not counts:
        return
    assert set(load.statuses) == {"200"}, (case.name, load.statuses)
    case.loads.append(load)
    case.busy.append((it.busy() - until) / load.asked)


def figures(case):
    """Medians over the rounds; and each round's requests a second."""
    loads = case.loads
    each = [round(it.per_second, 1) for it in loads]
    return {
        "connections": case.connections,
        "answered": sum(it.answered for it in loads),
        "per_second": round(median(each), 1),
        "inputs_per_second": round(case.inputs * median(each), 1),
        "p50_ms": round(1e3 * median(it.p50 for it in loads), 2),
        "p99_ms": round(1e3 * median(it.p99 for it in loads), 2),
        "longest_ms": round(1e3 * max(it.longest for it in loads), 1),
        "service_processor_ms": round(1e3 * median(case.busy), 3),
        "clients_processor_ms": round(1e3 * median(it.busy for it in loads), 3),
        "each_round_per_second": each,
        "each_round_p99_ms": [round(1e3 * it.p99, 2) for it in loads],
    }


def ratio(one, other, what):
    """Median over the rounds of one case's figure through another's, and the least and greatest."""
    each = sorted(what(a) / what(b) for a, b in zip(one.loads, other.loads, strict=True))
    return {"median": round(median(each), 2), "least": round(each[0], 2), "greatest": round(each[-1], 2)}


def ratios(found):
    """What is compared, each within its round."""
    speed, tail = (lambda it: it.per_second), (lambda it: it.p99)
    now = {name: name.removesuffix(", before") for name in found if name.endswith(", before")}
    return {
        **{f"{name} / before": ratio(found[name], found[then], speed) for then, name in now.items()},
        **{
            f"throughput in batches / one by one, c={n}": ratio(
                found[f"predict, c={n}, batched"], found[f"predict, c={n}, single"], speed
            )
            for n in (1, 8, 32)
        },
        "p99 of predict / live, c=8": ratio(found["predict, c=8, batched"], found["live, c=8"], tail),
        "rows a second, binary / JSON, 64 rows": ratio(found["64 rows, binary, c=8"], found["64 rows, c=8"], speed),
        "items a second, shared commits / a commit each, c=64": ratio(
            found["items, c=64, shared commits"], found["items, c=64, a commit each"], speed
        ),
    }


def commit_of(checkout):
    """Its short name."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def kept(data):
    """Items in the database of a service."""
    with sqlite3.connect(data / "inbox.db") as connection:
        return connection.execute("select count(*) from item").fetchone()[0]


def main():
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="Of each case in each round.")
    parser.add_argument("--only", default="", help="Only cases whose name holds this; nothing is compared then.")
    parser.add_argument("--before", type=Path, help="Another checkout, to be asked beside this one.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    loads, began, numbers = [os.getloadavg()], time.monotonic(), count()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        asked = cases(models(folder))
        services = dict(SERVICES)
        if arguments.before:
            asked += before(asked)
            services["before"] = ((), of_checkout(arguments.before))
        asked = [it for it in asked if arguments.only in it.name]
        up = {
            name: stack.enter_context(
                served(folder / "digits", folder / "images", "--data", folder / name, *options, program=program)
            )
            for name, (options, program) in services.items()
        }
        for case in asked:
            ask(case, up[case.service], 0.5, numbers, counts=False)
        for place in range(arguments.rounds):
            for case in asked[:: -1 if place % 2 else 1]:
                ask(case, up[case.service], arguments.seconds, numbers)
                print(
                    f"{case.name:30} {case.loads[-1].per_second:8.0f}/s  p99 {1e3 * case.loads[-1].p99:6.1f} ms",
                    flush=True,
                )
            loads.append(os.getloadavg())
        acknowledged = sum(case.asked for case in asked if case.new)
        stored = sum(kept(folder / name) for name in services)
    assert stored == acknowledged, (stored, acknowledged)
    result = {
        "schema": 1,
        "what": "how fast slots serve answers and keeps: medians over rounds in which all cases take turns",
        "command": " ".join(["python", "benchmarks/service.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": versions("fastapi", "uvicorn", "httptools", "uvloop", "pydantic", "sqlalchemy"),
        "load_average_1min": [round(it[0], 1) for it in loads],
        "rounds": arguments.rounds,
        "seconds_a_case": arguments.seconds,
        "elapsed_s": round(time.monotonic() - began, 1),
        "items_acknowledged": acknowledged,
        "items_in_the_databases": stored,
        "cases": {case.name: figures(case) for case in asked},
        "ratios": {} if arguments.only else ratios({it.name: it for it in asked}),
        "before": arguments.before and commit_of(arguments.before),
    }
    print(json.dumps({"ratios": result["ratios"], "load": result["load_average_1min"]}, indent=1))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
