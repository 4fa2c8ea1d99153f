"""Ten thousand answers while a new generation comes every 200 ms: each is its generation's own, to the last bit.

    python benchmarks/service_swaps.py --output benchmarks/results/service_swaps.json

The service answers on a model of three blobs, from one thread of this process, as `slots serve` does but that it looks
for new generations every 20 ms; another process asks with `--clients` connections, one to three different rows a
request, each connection as soon as it was answered. Every generation gives every row another label than the one
before. Afterwards each generation is loaded from the folder and asked for each row alone, with `SlotModel.predict` and
`SlotModel.assess_novelty`: label, slot, margins, kind of answer and p-value must be equal; a difference ends it.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.recorded import keep, made_with
from support.service import small_model
from support.swapping import asked_under_swaps


def main():
    """Ask, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=48, help="Connections that ask at a time.")
    parser.add_argument("--every", type=float, default=0.2, help="Seconds between two generations.")
    parser.add_argument("--swaps", type=int, default=300, help="Generations that are made beforehand.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model(folder / "small")
        found = asked_under_swaps(
            folder / "small",
            folder / "data",
            arguments.answers,
            clients=arguments.clients,
            swaps=arguments.swaps,
            seconds=arguments.every,
            seed=arguments.seed,
        )
    if found.wrong:
        first = found.wrong[0]
        sys.exit(f"{len(found.wrong)} requests were not answered as their generation answers; the first: {first}")
    result = {
        "schema": 1,
        "what": "answers under swaps, compared with those of the generations they name; stops at anything that differs",
        **made_with(__file__, arguments.seed, ("torch", "numpy", "fastapi", "uvicorn")),
        "load_average": {"before": [round(it, 1) for it in before], "after": [round(it, 1) for it in os.getloadavg()]},
        "clients": arguments.clients,
        "seconds_between_generations": {
            "asked": arguments.every,
            "median": round(statistics.median(found.between), 3),
            "longest": round(max(found.between), 3),
        },
        "requests": found.requests,
        "statuses": found.statuses,
        "answers": sum(found.answers.values()),
        "different": 0,  # else there would be no result
        "generations_that_became_current": len(found.between) + 1,
        "generations_that_answered": len(found.answers),
        "fewest_and_most_answers_of_one": [min(found.answers.values()), max(found.answers.values())],
        "seconds": round(found.seconds, 1),
    }
    keep(result, arguments.output)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
