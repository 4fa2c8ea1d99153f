"""Stop PostgreSQL at once, again and again, under a service that goes on, and hold what it has against the ledger.

    python tests/support/stop_postgresql.py --stops 200 --seed 0

As `kill_service.py`, but the service is never killed: its database is (``pg_ctl stop -m immediate``, after which it
recovers from its log). Meanwhile models must go on answering, and what needs the database be refused with 503 and
Retry-After; once it is back everybody must be served again by the same process, and everything acknowledged be there
once. Prints one JSON object of counts, or fails.
"""

import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.kill_service import Life, fitted, loaded, options
from support.postgresql import Server
from support.service_people import DIMENSIONS, MODEL
from support.warm_service import Nursery

STOPS_A_LIFE = 25
"""After so many stops everything is looked at once more, and a new service with a new database begins."""
AWAY_SECONDS = 0.3
"""How long the database is away, at most, beside the time that it needs to start."""


def answers(life: Life) -> None:
    """The model answers while the database is away."""
    life.watch.close()
    status, found, _ = life.watch.send("POST", f"{MODEL}/predict", {"inputs": [[1.0] * DIMENSIONS]})
    assert status == 200, found


def disturbed(life: Life, server: Server, address: str, chance: random.Random) -> str:
    """Load, a stop of the database, its start, and load until everybody was served again; tells when it was stopped."""
    stopping = threading.Event()
    for person in life.people:
        person.begin(address, stopping)
    try:
        when = loaded(life, chance)
        server.stop(immediate=True)
        answers(life)
        time.sleep(chance.uniform(0, AWAY_SECONDS))
        answers(life)
        server.start()
        before = [it.counts["acts acknowledged"] for it in life.people[:2]]
        until = time.monotonic() + 60
        while any(it.counts["acts acknowledged"] == n for it, n in zip(life.people[:2], before, strict=True)):
            assert all(it.failure is None for it in life.people), [it.failure for it in life.people]
            assert time.monotonic() < until, "the service does not go on after its database has come back"
            time.sleep(0.005)
    finally:
        stopping.set()
    for person in life.people:
        person.join()
    return when


def one_life(life: Life, nursery: Nursery, server: Server, stops: int, chance: random.Random) -> Counter[str]:
    """So many stops under one service; counts of what was found."""
    counts: Counter[str] = Counter(stops=stops)
    nursery.begin(life.arguments)
    address = nursery.address()
    assert address is not None, "the service did not start"
    for connection in (life.watch, *(it.connection for it in life.people)):
        connection.move(address)
    for _ in range(stops):
        counts[f"stopped {disturbed(life, server, address, chance)}"] += 1
        counts += life.check(restarted=None)
    counts += life.finish()
    nursery.kill(group=True)
    return counts


def main() -> None:
    """Stop, look, and print counts."""
    arguments = options(__doc__, "stops", 200).parse_args()
    chance, counts, started = random.Random(arguments.seed), Counter(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name, Server(sync=True) as server:
        folder = Path(name)
        centres = fitted(folder / "fits")
        nursery = Nursery()
        try:
            while counts["stops"] < arguments.stops:
                seed = arguments.seed * 1_000_003 + 10 * counts["services"]
                life = Life(folder / "fits", folder / str(counts["services"]), centres, seed, server.new())
                stops = min(STOPS_A_LIFE, arguments.stops - counts["stops"])
                counts += one_life(life, nursery, server, stops, chance) + Counter(services=1)
                shutil.rmtree(life.folder)
                sys.stderr.write(f"{counts['stops']} stops in {time.monotonic() - started:.0f} s\n")
        finally:
            nursery.close()
    sys.stdout.write(json.dumps(dict(sorted(counts.items()))) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
