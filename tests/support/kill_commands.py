"""The command line, killed or refused by the disk at each operation that changes a file, and what it leaves.

    python tests/support/kill_commands.py --seconds 600 --seed 0

Each command runs in a process of its own: a fork of one that has imported everything, or (``--own``) a new interpreter.
`faults.c` stands between it and the C library. Afterwards the model folder must hold the state of before or of after,
whole, with every older generation, and that of after where the command said so; each other file its old content or its
new; an error is one true line; and the next writer goes on and clears away what was left.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from support import faults
from support.small_models import mixture

import slots
from protocols.commands import main as command
from slots.model.editing import relabel
from slots.model.slot_model import SlotModel
from slots.storage.atomic import is_temporary
from slots.storage.generations import log
from slots.storage.store import check_target, read_state

OWN = [sys.executable, "-c", "from protocols.commands import main; main()"]
COMMANDS = {
    "fit": "fit --data {0}/new.npz --out {0}/fresh --epochs 1 --slots-per-class 2 --vouch none",
    "fit again": "fit --data {0}/new.npz --out {0}/fitted --epochs 1 --slots-per-class 2 --vouch none",
    "update": "update {0}/model --data {0}/new.npz --budget 4",
    "update with labels": "update {0}/model --data {0}/new.npz --labels {0}/labels.csv",
    "queries": "update {0}/model --data {0}/new.npz --budget 3 --dry-run",
    "relabel": "relabel {0}/model --slots 0,1 --label lynx",
    "merge": "merge {0}/model --from cat --from dog --into pet",
    "delete": "delete {0}/model --slots 0",
    "undo": "undo {0}/model --to 0",
    "prune": "prune {0}/model --keep 1 --pin 1",
    "predict": "predict {0}/model --data {0}/new.npz --out {0}/answers.csv",
    "predict into new folders": "predict {0}/model --data {0}/new.npz --out {0}/deep/er/answers.csv",
    "ood": "ood {0}/model --data {0}/new.npz --out {0}/scores.csv --false-alarm-rate 0.1",
    "clean into a new folder": "clean {0}/model --data {0}/new.npz --out {0}/deep/cleaned",
    "clean": "clean {0}/model --data {0}/new.npz --out {0}/cleaned",
}

MODELS = ("model", "fitted", "fresh")
TIMED = {"report.html", "label-errors.html"}
"""Pages that say how long the work took."""


@dataclass
class Found:
    """What came of all cases."""

    counts: Counter = field(default_factory=Counter)
    operations: dict = field(default_factory=dict)
    bad: list = field(default_factory=list)

    def blame(self, case, detail):
        """Note something that must not happen."""
        self.counts["bad"] += 1
        self.bad.append({"case": case, "detail": detail})


@dataclass(frozen=True)
class Seen:
    """What a folder holds: digests of the generations of each model in it, and its other files."""

    models: dict
    files: dict


def base(root):
    """A model with three generations, new data, labels for some of it, and files that will be overwritten."""
    x, y = mixture(3, 40)
    config = slots.TrainConfig(epochs=2, slots_per_class=3, device="cpu", held_out=0.3)
    model, _ = slots.fit(x, y, class_names=["cat", "dog", "bird"], config=config)
    model.save(root / "fitted")
    model.save(root / "model")
    relabel(model, [2], "finch")
    model.save(root / "model", keep_history=True)
    relabel(model, [1], "owl")
    model.save(root / "model", keep_history=True)
    new, labels = mixture(6, 12, seed=1)
    names = np.array(["cat", "dog", "bird", "ant", "bee", "cow"])
    np.savez(root / "new.npz", x_train=new, y_train=labels, x_test=new[:9], y_test=labels[:9], class_names=names)
    run_here(f"update {root}/model --data {root}/new.npz --budget 4 --dry-run")
    with (root / "model" / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "label": str(names[labels[int(row["example"])]])} for row in rows])
    (root / "cleaned").mkdir()
    for name in ("answers.csv", "scores.csv", "model/queries.html", "cleaned/label-errors.csv"):
        (root / name).write_text("what was there before\n")


def run_here(line):
    """A command in this process, which must end well."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = faults.ended(lambda: command(line.split()))
    if status:
        raise RuntimeError(f"{line}: status {status}")


def look(folder):
    """Read everything below a folder; raises what a damaged model raises."""
    models, files = {}, {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.name == "slots.json":
            models[str(inside.parent)] = generations(path.parent)
        ours = path.name in {"slots.json", ".lock"} or "states" in inside.parts or is_temporary(path)
        if path.is_file() and not ours:
            files[str(inside)] = path.read_bytes()
    return Seen(models, files)


def generations(folder):
    """Digest of what decides the answers of each kept generation, by its number; the current one is the last."""
    SlotModel.load(folder)
    found = {}
    for place, entry in enumerate([entry for entry in log(folder) if entry.kept]):
        state = read_state(folder, place)
        digest = hashlib.sha256(json.dumps([state.header.get("class_names"), entry.what, entry.n_slots]).encode())
        for stem, tensors in sorted(state.tensors.items()):
            for name, tensor in sorted(tensors.items()):
                digest.update(f"{stem} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        found[entry.number] = digest.hexdigest()[:16]
    return found


class Bench:
    """Runs one command after another on a copy of the same folder: of ``made``, where `base` has been there already."""

    def __init__(self, root, made=None):
        self.root, self.case, self.start = root, root / "case", root / "start"
        if made is None:
            self.start.mkdir()
            base(self.start)
        else:
            subprocess.run(["cp", "-a", made, self.start], check=True)
        (root / "aside").mkdir()
        self.library = os.environ["LD_PRELOAD"]  # the one that stands before the C library, no copy of it
        self.forked = faults.Forked(self.library, root / "aside")
        self.before, self.after, self.count, self.varying, self.lasts_s = None, {}, {}, {}, {}

    def fresh(self):
        """The folder as it was, with its hard links."""
        shutil.rmtree(self.case, ignore_errors=True)
        subprocess.run(["cp", "-a", self.start, self.case], check=True)

    def learn(self, name):
        """What a command does undisturbed, twice: the operations, what is there afterwards, and what varies."""
        self.fresh()
        self.before = self.before or look(self.case)
        seen = []
        for _ in range(2):
            self.fresh()
            started = time.monotonic()
            ended = self.run(name)
            self.lasts_s[name] = time.monotonic() - started
            assert ended.status == 0, ended.said
            seen.append(look(self.case))
        assert seen[0].models == seen[1].models, "not the same model twice"
        assert ended.operations or seen[0] == self.before, "changes that the library did not see"
        self.after[name], self.count[name] = seen[0], ended.operations
        self.varying[name] = {
            path for path, data in seen[0].files.items() if seen[1].files.get(path) != data or Path(path).name in TIMED
        }

    def words(self, name):
        """Arguments of a command."""
        return COMMANDS[name].format(self.case).split()

    def run(self, name, **fault):
        """Run a command in a fork."""
        return self.forked.run(lambda: command(self.words(name)), self.case, **fault)

    def run_own(self, name, *, fault, at):
        """Run a command in an interpreter of its own."""
        done = subprocess.run(
            [*OWN, *self.words(name)],
            env=faults.environment(self.library, self.case, fault=fault, at=at),
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        return faults.Ended(done.returncode, done.stderr, 0)

    def look(self):
        """What is there now."""
        return look(self.case)

    def judge(self, name, ended):
        """Hold what is there against what may be; returns where it stands, or raises what is wrong."""
        seen, after = look(self.case), self.after[name]
        if ended.status == -signal.SIGKILL:
            pass
        elif ended.status == 0:
            assert seen.models == after.models, "said to be done, and is not"
            wanted = set(after.files) - self.varying[name]
            assert all(seen.files.get(path) == after.files[path] for path in wanted), "a file that was acknowledged"
        else:
            self.judge_words(name, ended, seen)
        for folder in {*self.before.models, *after.models}:
            allowed = [self.before.models.get(folder), after.models.get(folder)]
            assert seen.models.get(folder) in allowed, f"{folder} is neither as before nor as after: {seen.models}"
        self.judge_files(name, seen)
        stands = "after" if seen.models == after.models else "before"
        self.go_on()
        return stands if after.models != self.before.models else "no change of a model"

    def judge_words(self, name, ended, seen):
        """An error is one line of the disk, and true."""
        lines = [line for line in ended.said.splitlines() if line.startswith("Error: ")]
        assert ended.status == 5, f"status {ended.status}: {ended.said[-1500:]}"
        assert len(lines) == 1, ended.said[-1500:]
        assert "Traceback" not in ended.said, ended.said[-1500:]
        in_place = "in place" in lines[0]
        path = Path(lines[0].split("`")[1])
        inside = str(path.relative_to(self.case))
        if inside in MODELS:
            assert seen.models == (self.after[name] if in_place else self.before).models, f"not so: {lines[0]}"
        elif in_place:
            new = self.after[name].files.get(inside)
            assert seen.files[inside] == new or inside in self.varying[name] or "checkpoint" in inside, (
                f"not so: {lines[0]}"
            )
        else:
            assert seen.files.get(inside) == self.before.files.get(inside), f"not so: {lines[0]}"

    def judge_files(self, name, seen):
        """Every other file has its old content or its new, and none is gone."""
        for path in {*self.before.files, *self.after[name].files, *seen.files}:
            old, new = self.before.files.get(path), self.after[name].files.get(path)
            now = seen.files.get(path)
            if path in self.varying[name] and now not in {None, old}:
                assert whole(path, now), f"{path} is half there"
            elif "checkpoint" in path and now is not None:  # it is there while a fit runs
                assert load_safetensors(now), f"{path} is half there"
            else:
                assert now in {old, new}, f"{path} is neither old nor new"

    def go_on(self):
        """The next writer works, and clears away what was left."""
        long_ago = time.time() - 3600
        for path in self.case.rglob("*"):
            if is_temporary(path):
                os.utime(path, (long_ago, long_ago))
        for folder in (self.case / name for name in MODELS):
            if not (folder / "slots.json").exists():
                check_target(folder)
                continue
            model = SlotModel.load(folder)
            relabel(model, [0], "afterwards")
            model.save(folder, keep_history=True)
            kept = json.loads((folder / "slots.json").read_text())["generations"]
            assert sorted(path.name for path in (folder / "states").iterdir()) == sorted(kept), "states left over"
            left = [path for path in folder.rglob("*") if is_temporary(path)]
            assert not left, left


def whole(path, data):
    """Tell whether a page or table that is not the same twice is all there."""
    if path.endswith(".html"):
        return data.rstrip().endswith(b"</html>")
    if path.endswith(".png"):
        return data.endswith(b"IEND\xaeB`\x82")
    if path.endswith(".json"):
        return bool(json.loads(data))
    return data.endswith(b"\n")


def one_case(bench, found, name, fault, at, *, own):
    """One command with one fault."""
    bench.fresh()
    case = f"{name}, operation {at}, {fault}"
    try:
        ended = bench.run_own(name, fault=fault, at=at) if own else bench.run(name, fault=fault, at=at)
        found.counts["cases"] += 1
        found.counts[fault] += 1
        found.counts[f"{'killed' if ended.status < 0 else 'refused' if ended.status else 'ended well'}"] += 1
        found.counts[f"then {bench.judge(name, ended)}"] += 1
    except Exception:  # noqa: BLE001  # what we are looking for
        found.blame(case, traceback.format_exc()[-1800:])


def random_kill(bench, found, name, chance):
    """One command killed at a random moment."""
    bench.fresh()
    after_s = chance.uniform(0.0, 1.1 * bench.lasts_s[name])
    try:
        ended = bench.run(name, kill_after_s=after_s)
        found.counts["kills at random"] += 1
        found.counts["of them in time"] += ended.status < 0
        found.counts[f"killed at random, then {bench.judge(name, ended)}"] += 1
    except Exception:  # noqa: BLE001  # what we are looking for
        found.blame(f"{name}, killed after {after_s:.3f} s", traceback.format_exc()[-1800:])


def cases(bench, names):
    """Every operation of every command with every fault."""
    return [(name, fault, at) for name in names for at in range(bench.count[name]) for fault in faults.FAULTS]


def attack(
    root, *, names=tuple(COMMANDS), most=None, seconds=float("inf"), seed=0, own=False, first=0, at_random=0, made=None
):
    """Try all cases in random order from one on, or as many as there is time for; first kills at random moments."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found, started, bench = Found(), time.monotonic(), Bench(root, made)
    for name in names:
        bench.learn(name)
    found.operations = dict(bench.count)
    chance = random.Random(seed)
    for number in range(at_random):
        random_kill(bench, found, names[number % len(names)], chance)
    chosen = cases(bench, names)
    found.counts["all cases"] = len(chosen)
    random.Random(seed).shuffle(chosen)
    for name, fault, at in chosen[first:][:most]:
        if time.monotonic() - started > seconds:
            break
        one_case(bench, found, name, fault, at, own=own)
    return found


def main():
    """Attack, print what came of it, and fail where something must not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--first", type=int, default=0, help="Begin with this one of all cases, in their random order.")
    parser.add_argument("--at-random", type=int, default=0, help="So many kills at random moments before them.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="An interpreter of its own for each: seconds a case.")
    parser.add_argument("--only", choices=COMMANDS, action="append", help="These commands.")
    parser.add_argument("--show", type=int, default=5)
    parser.add_argument("--made", type=Path, help="A folder that `base` has made, for many passes.")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")  # syncs cost nothing there; what they order, power_loss.py looks at
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if "LD_PRELOAD" not in os.environ:  # once more, with the library before all others
            library = faults.built(folder)
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=faults.environment(library), check=False).returncode
            )
        found = attack(
            Path(folder),
            names=tuple(arguments.only or COMMANDS),
            most=arguments.cases,
            seconds=arguments.seconds,
            seed=arguments.seed,
            own=arguments.own,
            first=arguments.first,
            at_random=arguments.at_random,
            made=arguments.made,
        )
    for bad in found.bad[: arguments.show]:
        sys.stderr.write(json.dumps(bad, indent=1).replace("\\n", "\n") + "\n")
    sys.stdout.write(json.dumps({**dict(sorted(found.counts.items())), "operations": found.operations}) + "\n")
    sys.exit(bool(found.bad))


if __name__ == "__main__":
    main()
