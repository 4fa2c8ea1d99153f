"""Kill a whole service at random moments under load, and hold what it has then against what it had acknowledged.

    python tests/support/kill_service.py --kills 300 --seed 0

People (`service_people.py`) send items, label them, work through query lists, start updates, import the model of the
fit, undo it, and write down what was acknowledged. At a random moment SIGKILL ends the service: its process with the
process of its jobs, or the former alone, under load or while it starts. It is started again on what it left, and then
(`service_verdict.py`) each acknowledged item must be there once with its content, each label and act once and whole,
the model at the last acknowledged generation or the one after it, no job running that nobody does, and the log of
events whole. People then send again what had no answer, which must be done once. Prints one JSON object of counts, or
fails.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from support.service_people import DIMENSIONS, Admin, Connection, Person, Reviewer, Sender
from support.service_verdict import Rows, check, check_learned
from support.warm_service import Nursery

import backbones
from protocols.service.callers import LOCAL, Role
from protocols.service.engines.engine import make_engine, reading
from protocols.service.gate.keys import add_key
from protocols.service.inbox.database import Database
from protocols.service.jobs.archives.packing import pack
from slots.model.comparison import diff
from slots.model.slot_model import SlotModel
from slots.storage.generations import log
from slots.training import TrainConfig, fit
from slots.update.config import UpdateConfig
from slots.update.self_training import SelfTrainingConfig

KILLS_A_LIFE = 40
"""After so many kills everything is looked at once more, and a new service begins."""
ACTS = 30
"""Answered under load before a kill, at most."""
LATER_SECONDS = 0.05
"""From there to the kill, at most; with a job running three times as long."""
STARTING_SECONDS = 0.15
"""How far a kill while the service starts comes after its begin, at most."""


def fitted(folder: Path) -> np.ndarray:
    """Two models to serve, of rows and of pictures; the centres of the classes that the former knows."""
    draws = np.random.default_rng(0)
    centres = (np.eye(DIMENSIONS)[:3] * 3).astype(np.float32)
    y = draws.integers(0, 3, 900)
    x = (centres[y] + draws.normal(0, 0.4, (900, DIMENSIONS))).astype(np.float32)
    config = TrainConfig(epochs=2, slots_per_class=2, held_out=0.2)
    model, _ = fit(x, y, config=config, class_names=("red", "green", "blue"))
    model.save(folder / "small")
    new = draws.normal(size=(40, DIMENSIONS)).astype(np.float32)
    model.update(new, {0: "white"}, config=UpdateConfig(spread=SelfTrainingConfig()))  # compiles what updates need
    pictures = draws.integers(0, 256, (60, 8, 8, 1), np.uint8)
    backbone = backbones.build("pixels", input_shape=(1, 8, 8))
    config = TrainConfig(epochs=1, slots_per_class=1)
    model, _ = fit(pictures, np.arange(60) % 2, backbone=backbone, config=config, class_names=("one", "two"))
    model.save(folder / "pictures")
    return centres


@dataclass
class Life:
    """One data folder, its models, and the people who use the service on them.

    Parameters
    ----------
    fits : Path
        Models as they were fitted.
    folder : Path
        For this life alone.
    centres : array
        Of the classes that the model knows.
    seed : int
        Decides what people do.
    database : str
        URL of an empty database; empty for SQLite.
    """

    fits: Path
    folder: Path
    centres: np.ndarray
    seed: int
    database: str = ""
    people: list[Person] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("small", "pictures"):
            shutil.copytree(self.fits / name, self.folder / name)
        self.data = self.folder / "data"
        roles = {"ann": Role.LABEL, "bob": Role.LABEL, "cleo": Role.LABEL, "root": Role.ADMIN, "watch": Role.READ}
        database = Database(self.database) if self.database else Database.in_folder(self.data)
        try:
            keys = {
                name: database.write_now(lambda it, name=name, role=role: add_key(it, LOCAL, name, role)[1])
                for name, role in roles.items()
            }
        finally:
            database.close()
        self.watch = Connection(keys["watch"])
        with pack(self.fits / "small").file as packed:
            self.admin = Admin("root", keys["root"], self.seed, packed.read())
        self.people = [
            Sender("ann", keys["ann"], self.seed + 1, self.centres),
            Sender("bob", keys["bob"], self.seed + 2, self.centres),
            Reviewer("cleo", keys["cleo"], self.seed + 3),
            self.admin,
        ]
        self.engine = reading(make_engine(self.database or f"sqlite:///{self.data / 'inbox.db'}"))

    @property
    def arguments(self) -> list[str]:
        """Of ``slots serve``."""
        models = [f"{name}={self.folder / name}" for name in ("small", "pictures")]
        options = ["--port", "0", "--data", str(self.data), "--requests-per-second", "0", "--device", "cpu"]
        return [*models, *options, *(["--db", self.database] if self.database else [])]

    @property
    def acts(self) -> int:
        """Acknowledged so far (count)."""
        return sum(it.counts["acts acknowledged"] for it in self.people)

    def served(self) -> int:
        """The generation that answers."""
        self.watch.close()  # the service closes what is idle for ten seconds
        status, found, _ = self.watch.send("GET", "/api/v1/models/small")
        assert status == 200, found
        return found["generation"]

    def check(self, *, restarted: float | None) -> Counter[str]:
        """Look at everything that was acknowledged."""
        served, rows = self.served(), Rows.read(self.engine)
        if self.admin.open:  # the job of an order that nobody answered may just have made a generation: its row follows
            until = time.monotonic() + 10
            while rows.swaps and rows.swaps[-1].after < served and time.monotonic() < until:
                time.sleep(0.05)
                rows = Rows.read(self.engine)
        return check(rows, self.people, self.folder / "small", self.data, served=served, restarted=restarted)

    def finish(self) -> Counter[str]:
        """Let everybody get the answers that they wait for; then everything is known, and is looked at once more."""
        for person in self.people:
            until = time.monotonic() + 60
            while person.pending is not None or (person is self.admin and self.admin.following is not None):
                person.step()
                assert time.monotonic() < until, (person.name, person.pending)
        counts = self.check(restarted=None)
        counts["items learned"] = check_learned(Rows.read(self.engine), self.folder / "small")
        counts["generations proven"] = self._prove()
        counts["items"] = sum(len(it.items) for it in self.people)
        counts["rows of labels"] = sum(len(said) for it in self.people for said in it.labels)
        for person in self.people:
            counts += person.counts
            person.connection.close()
        self.watch.close()
        self.engine.dispose()
        return counts

    def _prove(self) -> int:
        """Each update between two generations changed no matched answer."""
        small, proven = self.folder / "small", 0
        for entry in log(small):
            if entry.what == "update":
                older, newer = (SlotModel.load(small, generation=entry.number - 1 + it) for it in (0, 1))
                assert diff(older, newer).proven, entry
                proven += 1
        return proven


def loaded(life: Life, chance: random.Random) -> str:
    """Wait for a random moment: after some answers, whatever the machine's speed, or while a job runs."""
    until = time.monotonic() + 10
    if chance.random() < 0.25 and life.admin.running.wait(5):
        time.sleep(chance.uniform(0, 3 * LATER_SECONDS))
        return "during a job"
    if chance.random() < 0.3:
        jobs = life.admin.settled
        while life.admin.settled == jobs and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, LATER_SECONDS))
        return "after a job"
    acts = life.acts + chance.randint(0, ACTS)
    while life.acts < acts and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, LATER_SECONDS))
    return "under load"


def disturbed(life: Life, nursery: Nursery, address: str, chance: random.Random) -> tuple[str, str, float]:
    """Load, a kill, and a service that runs again: what was killed when, the new address, when it began."""
    stopping = threading.Event()
    for person in life.people:
        person.begin(address, stopping)
    when = loaded(life, chance)
    group = chance.random() < 0.7
    nursery.kill(group=group)
    stopping.set()
    for person in life.people:
        person.join()
    began = time.time()
    nursery.begin(life.arguments)
    if chance.random() < 0.15:
        time.sleep(chance.uniform(0, STARTING_SECONDS))
        nursery.kill(group=True)
        when += ", again while starting"
        began = time.time()
        nursery.begin(life.arguments)
    found = nursery.address()
    assert found is not None, "the service did not start on what it had left"
    return f"{when}, {'all processes' if group else 'the main process'}", found, began


def one_life(life: Life, nursery: Nursery, kills: int, chance: random.Random) -> Counter[str]:
    """So many kills of one service; counts of what was found."""
    counts: Counter[str] = Counter()
    nursery.begin(life.arguments)
    address = nursery.address()
    assert address is not None, "the service did not start"
    done = 0
    while done < kills:
        killed, address, began = disturbed(life, nursery, address, chance)
        done += 1 + ("again" in killed)
        counts[f"killed {killed}"] += 1
        for connection in (life.watch, *(it.connection for it in life.people)):
            connection.move(address)
            counts += life.check(restarted=began)
    counts["kills"] = done
    return counts + life.finish()


def options(description: str, what: str, default: int) -> argparse.ArgumentParser:
    """The options of a script that disturbs services so many times, and counts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{what}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where the data lie. Default: a temporary folder.")
    return parser


def wanted(word: str) -> tuple[str, int]:
    """What is to be counted, and how often at least."""
    name, _, least = word.rpartition("=")
    return name, int(least)


def main() -> None:
    """Kill, look, and print counts."""
    parser = options(__doc__, "kills", 300)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no new service after so long.")
    parser.add_argument(
        "--least",
        type=wanted,
        action="append",
        default=[],
        metavar="COUNT=N",
        help="Go on, up to five times the kills, until so many were counted: what kills meet depends on the machine.",
    )
    arguments = parser.parse_args()
    chance, counts, started = random.Random(arguments.seed), Counter(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        centres = fitted(folder / "fits")
        nursery = Nursery()

        def ends() -> bool:
            if time.monotonic() - started >= arguments.seconds or counts["kills"] >= 5 * arguments.kills:
                return True
            return counts["kills"] >= arguments.kills and all(counts[it] >= n for it, n in arguments.least)

        try:
            while not ends():
                number = counts["services"]
                life = Life(folder / "fits", folder / str(number), centres, arguments.seed * 1_000_003 + 10 * number)
                left = arguments.kills - counts["kills"]
                kills = min(KILLS_A_LIFE, left if left > 0 else arguments.kills)
                counts += one_life(life, nursery, kills, chance) + Counter(services=1)
                shutil.rmtree(life.folder)
                sys.stderr.write(f"{counts['kills']} kills in {time.monotonic() - started:.0f} s\n")
        finally:
            nursery.close()
    sys.stdout.write(json.dumps(dict(sorted(counts.items()))) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
