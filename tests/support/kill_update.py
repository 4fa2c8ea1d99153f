"""Kill a process at random moments while it updates, edits and undoes a model, and look at what it left.

Run as ``python kill_update.py FOLDER KILLS SEED``: one process imports everything once, then forks workers and kills
them. A worker announces each generation, with a digest of its content, before it saves it, and acknowledges it when the
save has returned. So after a kill the folder must hold the last acknowledged generation or the one announced after it,
whole, and every generation acknowledged before. Prints one JSON object of counts.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slots.errors import UsageError
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.model.editing import delete, merge, relabel
from slots.model.slot_model import SlotModel
from slots.storage.generations import Generation, log, undo
from slots.update.config import UpdateConfig

WIDTH = 32
GENERATIONS = 10
"""After so many a folder has been checked in full, it is replaced by a new one."""


def main(folder: Path, kills: int, seed: int) -> None:
    chance, counts, known = random.Random(seed), Counter(), {}
    worked_s = warm_up(folder.with_name("warm"))
    for number in range(kills):
        if not known or len(known) > GENERATIONS:
            counts["generations_checked"] += check_all(folder, known) if known else 0
            known = start(folder)
        told = told_until_killed(folder, chance, seed=seed * 1_000_003 + number, up_to_s=2 * worked_s)
        counts[f"killed_{place(told)}"] += 1
        counts["left_an_unfinished_state"] += any(path.name.startswith(".") for path in (folder / "states").iterdir())
        counts.update(check(folder, known, told))
    counts["generations_checked"] += check_all(folder, known)
    load(folder).save(folder, keep_history=True)
    litter = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(".tmp")]
    assert not litter, litter
    shutil.rmtree(folder)
    json.dump({"kills": kills, "seed": seed, "undisturbed_s": round(worked_s, 4), **sorted_counts(counts)}, sys.stdout)


def sorted_counts(counts: Counter) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}


# The model, and what is done to it


def build(_name, *, input_shape):
    return nn.Linear(input_shape[0], WIDTH, bias=False)


def load(folder: Path, generation: int | None = None) -> SlotModel:
    return SlotModel.load(folder, generation=generation, build=build)


def start(folder: Path) -> dict[int, str]:
    """A new model as generation 0; returns its digest by its number."""
    if folder.exists():
        shutil.rmtree(folder)
    head = IncrementalNeuralHashing(WIDTH)
    axes = torch.eye(WIDTH)[:4]
    head.add_slots(axes, torch.tensor([0, 0, 1, 1]), support_thresholds=torch.full((4,), 0.8))
    torch.manual_seed(0)
    layer = build("", input_shape=(WIDTH,))
    layer.weight.data = torch.eye(WIDTH)
    preprocessing = Preprocessing("features", (WIDTH,))
    model = SlotModel(preprocessing, head, backbone=layer, class_names=["cat", "dog"], backbone_spec=("linear", {}))
    model.exemplar_features = axes[:, None].repeat(1, 4, 1).half()
    model.history.append(Generation(0, "fit", 4, {}))
    model.save(folder)
    return {0: digest(model)}


def digest(model: SlotModel) -> str:
    """Of all that decides an answer, its name, and what is remembered."""
    parts = [value.numpy().tobytes() for _, value in sorted(model.head.state_dict().items())]
    names = [model.class_name(label) for label in model.head.labels.tolist()]
    parts += [
        model.exemplar_features.numpy().tobytes(),
        model.backbone.weight.detach().numpy().tobytes(),
        repr(names).encode(),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def work(folder: Path, chance: random.Random, tell) -> None:
    """One update, edit or undo of what the folder holds, announced before and acknowledged after it is saved."""
    step = chance.choice(["update", "update", "update", "update", "relabel", "merge", "delete", "undo"])
    tell("began", step)
    model = load(folder)
    if step == "undo":
        entries = log(folder)
        others = [entry.number for entry in entries if entry.content != entries[-1].content]
        if not others:
            return
        to = chance.choice(others)
        tell("announced", model.generation + 1, digest(load(folder, to)))
        undo(folder, to)
        tell("acknowledged", model.generation + 1)
        return
    before = model.generation
    try:
        change(model, step, chance)
    except UsageError:  # the only slot cannot be deleted
        return
    if model.generation == before:
        return
    tell("announced", model.generation, digest(model))
    model.save(folder, keep_history=True)
    tell("acknowledged", model.generation)


def change(model: SlotModel, step: str, chance: random.Random) -> None:
    slot = chance.randrange(model.head.n_slots)
    if step == "update":
        draws = np.random.default_rng(chance.getrandbits(32))
        axes = normalize(torch.from_numpy(draws.normal(size=(2, 1, WIDTH)))).numpy()
        x = (axes + 0.05 * draws.normal(size=(2, 8, WIDTH))).reshape(16, WIDTH).astype(np.float32)
        labels = {0: chance.choice(["cat", "dog", "bird"])} if chance.random() < 0.5 else None
        model.update(x, labels, config=UpdateConfig(epochs=0))  # torch's optimisers would triple what a fork copies
    elif step == "relabel":
        relabel(model, [slot], chance.choice(["cat", "dog", "bird"]))
    elif step == "merge":
        merge(model, [model.class_name(int(model.head.labels[slot]))], chance.choice(["cat", "fish"]))
    else:
        delete(model, [slot])


def warm_up(folder: Path) -> float:
    """Compile and load everything; returns the seconds that one piece of work takes undisturbed."""
    start(folder)
    chance = random.Random(0)
    for _ in range(20):
        work(folder, chance, lambda *_: None)
    started = time.monotonic()
    for _ in range(10):
        work(folder, chance, lambda *_: None)
    shutil.rmtree(folder)
    return (time.monotonic() - started) / 10


# Killing, and looking


def told_until_killed(folder: Path, chance: random.Random, *, seed: int, up_to_s: float) -> list[list[str]]:
    """Fork a worker, kill it, return what it told; half of the kills are aimed at a save."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run_worker(folder, seed, writing)
    os.close(writing)
    text = b""
    if chance.random() < 0.5:
        while b"announced" not in text and (more := os.read(reading, 4096)):
            text += more
        time.sleep(up_to_s * chance.random() ** 4)  # a save is short; on any disk some kills fall into each part of it
    else:
        time.sleep(chance.uniform(0.0, up_to_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the worker ended by itself; its error stands above"
    with os.fdopen(reading, "rb") as pipe:
        text += pipe.read()
    return [line.split() for line in text.decode().splitlines()]


def place(told: list[list[str]]) -> str:
    """What the worker was at when it was killed."""
    began = [words[1] for words in told if words[0] == "began"]
    if not began:
        return "before_anything"
    if told[-1][0] == "acknowledged":
        return "between_two_steps"
    return f"{'saving' if told[-1][0] == 'announced' else 'before_saving'}_{began[-1]}"


def run_worker(folder: Path, seed: int, writing: int) -> None:
    """Work until killed; never returns."""
    chance = random.Random(seed)
    try:
        while True:
            work(folder, chance, lambda *words: os.write(writing, (" ".join(map(str, words)) + "\n").encode()))
    except BaseException:  # noqa: BLE001  # whatever it is, the parent has to see it
        traceback.print_exc()
    finally:
        os._exit(1)


def check(folder: Path, known: dict[int, str], told: list[list[str]]) -> Counter:
    """The folder holds what was acknowledged last, or what was announced after it; learn what it holds now."""
    announced = {int(words[1]): words[2] for words in told if words[0] == "announced"}
    acknowledged = [int(words[1]) for words in told if words[0] == "acknowledged"]
    last = max([*known, *acknowledged])
    model = load(folder)
    assert model.generation in {last, *(number for number in announced if number == last + 1)}, "a generation is lost"
    known.update({number: text for number, text in announced.items() if number <= model.generation})
    assert digest(model) == known[model.generation], "half of a generation"
    entries = log(folder)
    assert [entry.number for entry in entries if entry.kept] == list(range(model.generation + 1)), "a gap in the log"
    assert sorted(known) == list(range(model.generation + 1))
    return Counter(acknowledged=len(acknowledged), saved_but_not_acknowledged=int(model.generation == last + 1))


def check_all(folder: Path, known: dict[int, str]) -> int:
    """Every generation is what was announced, bit for bit; the unchanged backbone lies there once."""
    for number, text in known.items():
        assert digest(load(folder, number)) == text, f"generation {number} is not what was saved"
    assert len({path.stat().st_ino for path in folder.glob("states/*/backbone.safetensors")}) == 1
    return len(known)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
