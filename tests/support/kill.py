"""Kill a writer of model states at random moments, many times, and look at what it left.

Run as ``python kill.py FOLDER ROUNDS SEED``: one process imports torch once, then forks writers and kills them. Each
writer tells through a pipe that it begins, and which state is written; so the folder must hold that one, or the one
after it when the kill came between the flip and the telling. A writer that is left alone for a while first says how
long a state takes on this machine, as busy as it is: kills come within the time of a few.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from slots.storage.store import read_state, write_state

PILOT_S = 0.5
STATES = 4  # within whose time a writer is killed


def main(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    last, unfinished = write(folder, 0), 0
    pilot = told_until_killed(folder, last, delay_s=PILOT_S)
    pace, last = PILOT_S / (pilot + 1), check(folder, pilot)
    for _ in range(rounds):
        last_told = told_until_killed(folder, last, delay_s=chance.uniform(0.0, STATES * pace))
        unfinished += any(path.name.startswith(".") for path in (folder / "states").iterdir())
        last = check(folder, last_told)
    write(folder, last + 1)
    litter = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    sys.stdout.write(f"{rounds} kills, {unfinished} within a state, {last + 1} states, left: {' '.join(litter)}\n")


def write(folder: Path, count: int) -> int:
    tensors = {"head": {"weights": torch.full((64, 64), float(count))}, "backbone": {"bias": torch.full((9,), count)}}
    write_state(folder, header={"count": count}, tensors=tensors, keep_history=count % 3 == 0)
    return count


def told_until_killed(folder: Path, start: int, *, delay_s: float) -> int:
    """Fork a writer that counts up from ``start``, kill it, return the last count it said was on disk."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = start
        os.write(writing, b">")
        while True:
            count = write(folder, count + 1)
            os.write(writing, b".")
    os.close(writing)
    assert os.read(reading, 1) == b">"
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = 0
    while dots := os.read(reading, 4096):
        told += len(dots)
    os.close(reading)
    return start + told


def check(folder: Path, told: int) -> int:
    """The folder holds the last state that was told, or the next one; whole, and nothing mixed."""
    state = read_state(folder)
    count = state.header["count"]
    assert count in {told, told + 1}, (count, told)
    assert bool((state.tensors["head"]["weights"] == count).all()), "tensors of another state"
    assert bool((state.tensors["backbone"]["bias"] == count).all()), "tensors of another state"
    for generation in range(state.n_generations):
        read_state(folder, generation)
    return count


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
