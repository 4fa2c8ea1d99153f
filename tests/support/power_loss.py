"""What a power failure may leave of a command's writes: many states that POSIX allows, each looked at.

    python tests/support/power_loss.py --states 1000 --seed 0

Each command is run once while `faults.c` records its operations on files. A crash may then come after any of them. What
was not forced to disk by then is there or not, each part of it by itself: a name in a folder that was not synced, in
the order of its changes; the sectors of a file that was not synced, also as zeros or as rubbish of the right size. A
rename may leave both names, and never neither. A file's sync promises nothing of its name. After every crash the folder
must be as before the command or as after it, and as after it where the command had returned.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support import faults
from support.kill_commands import COMMANDS, Bench

SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """One line of the record."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def operations(record):
    """Read a record."""
    raw, found = Path(record).read_bytes(), []
    while raw:
        line, _, raw = raw.partition(b"\n")
        kind, path, other, _inode, offset, size = os.fsdecode(line).split("\t")
        found.append(Operation(kind, path, other, int(offset), raw[: int(size)]))
        raw = raw[int(size) :]
    return found


@dataclass(eq=False)
class File:
    """Bytes on disk, and the writes after the last sync."""

    durable: bytes = b""
    pending: list = field(default_factory=list)

    def now(self):
        """What a reader sees."""
        return written(self.durable, self.pending)


@dataclass(eq=False)
class Folder:
    """Names on disk; the changes after the last sync as (name, node or None, number of the operation); all names."""

    durable: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)
    now: dict = field(default_factory=dict)

    def put(self, name, node, number):
        """Give or take a name."""
        self.pending.append((name, node, number))
        if node is None:
            del self.now[name]
        else:
            self.now[name] = node


def written(data, writes):
    """Bytes after writes."""
    data = bytearray(data)
    for kind, offset, more in writes:
        if kind == "truncate":
            del data[offset:]
            data.extend(bytes(offset - len(data)))
        else:
            data.extend(bytes(max(0, offset - len(data))))
            data[offset : offset + len(more)] = more
    return bytes(data)


class Disk:
    """A folder, what is on disk of it, and what only seems to be."""

    def __init__(self, root):
        self.root = str(root)
        self.top = self._read(Path(root), {})

    def _read(self, path, links):
        info = path.lstat()
        if path.is_dir():
            names = {child.name: self._read(child, links) for child in path.iterdir()}
            return Folder(dict(names), [], dict(names))
        return links.setdefault(info.st_ino, File(path.read_bytes()))

    def at(self, path):
        """The node that a path names now."""
        node = self.top
        for part in Path(path).relative_to(self.root).parts:
            node = node.now[part]
        return node

    def do(self, number, operation):
        """Do one operation, as a reader sees it."""
        path, kind = operation.path, operation.kind
        parent, name = (self.at(os.path.dirname(path)), os.path.basename(path)) if path != self.root else (None, "")
        if kind == "sync":
            node = self.at(path)
            if isinstance(node, File):
                node.durable, node.pending = node.now(), []
            else:
                node.durable, node.pending = dict(node.now), []
        elif kind in {"write", "truncate"}:
            self.at(path).pending.append((kind, operation.offset, operation.data))
        elif kind in {"create", "mkdir"}:
            parent.put(name, File() if kind == "create" else Folder(), number)
        elif kind == "unlink":
            parent.put(name, None, number)
        elif kind in {"rename", "link"}:
            node = parent.now[name]
            self.at(os.path.dirname(operation.other)).put(os.path.basename(operation.other), node, number)
            if kind == "rename":
                parent.put(name, None, number)
        else:
            raise ValueError(kind)

    def nodes(self):
        """All nodes that a crash may leave, each once, folders before what is in them."""
        found, waiting = {}, [self.top]
        while waiting:
            node = waiting.pop()
            if id(node) in found:
                continue
            found[id(node)] = node
            if isinstance(node, Folder):
                waiting += [*node.durable.values(), *(it for _, it, _ in node.pending if it is not None)]
        return list(found.values())

    def units(self):
        """What may be on disk or not, each by itself: (folder, name), or a file with writes that are not synced."""
        found = []
        for node in self.nodes():
            if isinstance(node, Folder):
                found += [(node, name) for name in dict.fromkeys(name for name, _, _ in node.pending)]
            elif node.pending:
                found.append((node, None))
        return found

    def crash(self, survives, rng):
        """The tree of a legal state; ``survives(unit)`` says if all of a unit, nothing, or some (None) is there."""
        missing, chosen = set(), {}  # numbers of renames whose new name is not there
        for node, name in self.units():
            fate = survives((node, name))
            if name is None:
                chosen[id(node), None] = torn(node, rng) if fate is None else node.now() if fate else node.durable
                continue
            changes = [(it, number) for at, it, number in node.pending if at == name]
            kept = rng.randrange(len(changes) + 1) if fate is None else len(changes) if fate else 0
            chosen[id(node), name] = changes[:kept]
            missing |= {number for it, number in changes[kept:] if it is not None}
        return self._tree(self.top, chosen, missing)

    def _tree(self, node, chosen, missing):
        if isinstance(node, File):
            return chosen.get((id(node), None), node.durable)
        names = dict(node.durable)
        for name in dict.fromkeys(name for name, _, _ in node.pending):
            for it, number in chosen[id(node), name]:
                if it is not None:
                    names[name] = it
                elif number in missing:  # the old name stays until the new one is there
                    break
                else:
                    names.pop(name, None)
        return {name: self._tree(it, chosen, missing) for name, it in names.items()}


def torn(file, rng):
    """Some of a file's unsynced writes: sectors of them, and zeros or rubbish where the size alone got there."""
    now, old = file.now(), file.durable
    size = rng.choice([len(now), len(old), rng.randint(min(len(old), len(now)), max(len(old), len(now)))])
    rest = rng.choice([bytes(len(now)), rng.randbytes(len(now))])
    out, share = bytearray(size), rng.random()
    for at in range(0, size, SECTOR):
        there = old[at : at + SECTOR] if at < len(old) else rest[at : at + SECTOR]
        got = now[at : at + SECTOR] if rng.random() < share else there
        out[at : at + SECTOR] = got.ljust(min(SECTOR, size - at), b"\0")[: size - at]
    return bytes(out)


def make(tree, path):
    """Write a tree."""
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, it in tree.items():
        make(it, path / name)


def digest(tree):
    """Digest of a tree."""
    if isinstance(tree, bytes):
        return hashlib.sha256(tree).hexdigest()
    return hashlib.sha256(json.dumps([(name, digest(it)) for name, it in sorted(tree.items())]).encode()).hexdigest()


def crashes(disk, rng, *, draws):
    """Trees of legal states at one moment: nothing survived, all, all but one, one alone, and some by chance."""
    units = disk.units()
    yield disk.crash(lambda _: False, rng)
    yield disk.crash(lambda _: True, rng)
    for unit in units:
        yield disk.crash(lambda it, unit=unit: it == unit, rng)
        yield disk.crash(lambda it, unit=unit: it != unit, rng)
    for _ in range(draws if units else 0):
        fates = {}
        yield disk.crash(
            lambda it, fates=fates: fates.setdefault((id(it[0]), it[1]), rng.choice([True, False, None])), rng
        )


@dataclass
class Found:
    """What came of all states."""

    counts: Counter = field(default_factory=Counter)
    states: dict = field(default_factory=dict)
    bad: list = field(default_factory=list)


def lose_power(root, *, names=tuple(COMMANDS), states=1000, draws=20, seconds=float("inf"), seed=0, made=None):
    """Look at so many different states of each command, or for so long."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found, bench, started, rng = Found(), Bench(root, made), time.monotonic(), random.Random(seed)
    for name in names:
        bench.learn(name)
        bench.fresh()
        disk = Disk(bench.case)
        ended = bench.run(name, record=root / "record")
        assert ended.status == 0, ended.said
        bench.after[name], bench.varying[name] = bench.look(), set()  # of this very run
        recorded = operations(root / "record")
        trees = {}
        for number in range(len(recorded) + 1):
            last = number == len(recorded)
            for tree in crashes(disk, rng, draws=draws * (10 if last else 1)):
                trees.setdefault((digest(tree), last), (number, tree))
            if not last:
                disk.do(number, recorded[number])
        there = [(number, number == len(recorded), tree) for number, tree in trees.values()]
        found.counts["legal states made"] += len(there)
        rng.shuffle(there)
        there.sort(key=lambda it: not it[1])  # those after the acknowledgement first: they are few
        for number, last, tree in there[:states]:
            if time.monotonic() - started > seconds:
                break
            one_state(bench, found, name, number, tree, acknowledged=last)
    return found


def one_state(bench, found, name, number, tree, *, acknowledged):
    """Make one state and judge it."""
    shutil.rmtree(bench.case, ignore_errors=True)
    make(tree, bench.case)
    found.counts["states looked at"] += 1
    found.counts["after the acknowledgement"] += acknowledged
    found.states[name] = found.states.get(name, 0) + 1
    try:
        ended = faults.Ended(0 if acknowledged else -9, "", 0)
        found.counts[f"then {bench.judge(name, ended)}"] += 1
    except Exception:  # noqa: BLE001  # what we are looking for
        found.counts["bad"] += 1
        case = f"{name}, power lost after {number} operations"
        found.bad.append({"case": case, "detail": traceback.format_exc()[-1500:]})


def main():
    """Lose power, print what came of it, and fail where something must not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=1000, help="Of each command, at most.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=COMMANDS, action="append", help="These commands.")
    parser.add_argument("--show", type=int, default=5)
    parser.add_argument("--made", type=Path, help="A folder that `kill_commands.base` has made.")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if "LD_PRELOAD" not in os.environ:  # once more, with the library before all others
            library = faults.built(folder)
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=faults.environment(library), check=False).returncode
            )
        found = lose_power(
            Path(folder),
            names=tuple(arguments.only or COMMANDS),
            states=arguments.states,
            seconds=arguments.seconds,
            seed=arguments.seed,
            made=arguments.made,
        )
    for bad in found.bad[: arguments.show]:
        sys.stderr.write(json.dumps(bad, indent=1).replace("\\n", "\n") + "\n")
    sys.stdout.write(json.dumps({**dict(sorted(found.counts.items())), "commands": found.states}) + "\n")
    sys.exit(bool(found.bad))


if __name__ == "__main__":
    main()
