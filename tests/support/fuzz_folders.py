"""Model folders of a stranger, by the thousand: each opens and works, or is refused in one sentence.

    python tests/support/fuzz_folders.py --cases 20000 --seconds 600 --seed 0

Four models with a few generations each are copied and changed: headers, tensors, files, links, the list of generations.
Most changes get the right digests again, as a forger would give them; the others are damage, after which only what was
written may be read. Then everything that reads a folder is done with it, in Python and by the commands, while an audit
hook watches that nothing is started and nothing read elsewhere.
"""

import argparse
import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import safetensors.torch
import torch
from support.watch import watched

import backbones
import slots
from backbones.text.encoder import TextBackbone
from protocols.commands import main as command
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.storage.generations import Generation, log
from slots.storage.store import read_state

LONGEST_S = 20  # that one case may take
_CONFIG = slots.TrainConfig(epochs=2, slots_per_class=3, held_out=0.3, device="cpu")
_ODD = (
    *(None, True, False, -1, 0, 1, 2, 7, 64, 65_536, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "none", "text", "\ud800", "\x00", "../..", "/etc/passwd", "[/x]", "\x1b[2J", "a" * 10_000, "1e9"),
    *([], {}, [[]], [1, 2], [None], {"a": 1}, [0] * 2000, [[[[[[]]]]]]),
)
_TENSOR_CHANGES = (
    *("entry", "entry", "entry", "all", "scale", "cut", "repeat", "flat", "turn", "kind", "kind"),
    *("remove", "rename", "swap", "add", "empty", "shuffle"),
)
_WORDS = ("number", "what", "name", "options", "to", "figures", "shape", "kind", "mean", "std", "views", "vouching")


@dataclass
class Original:
    """A model on disk, inputs to ask it with, and what its states hold."""

    folder: Path
    x: object
    states: list


@dataclass
class Found:
    """What came of all cases."""

    counts: Counter = field(default_factory=Counter)
    bad: list = field(default_factory=list)
    slowest_s: float = 0.0

    def blame(self, kind, case, what, detail):
        """Note something that must not happen."""
        self.counts[kind] += 1
        self.bad.append({"kind": kind, "case": case, "mutation": what, "detail": detail})


# The models


def originals(root):
    """Four models: rows with whitening, pictures with views, pictures through a network, and text."""
    rng = np.random.default_rng(0)
    rows = (np.eye(6, dtype=np.float32)[np.arange(240) % 3] + rng.normal(0, 0.2, (240, 6))).astype(np.float32)
    labels = np.arange(240) % 3
    new = (np.eye(6, dtype=np.float32)[3 + np.arange(30) % 3] + rng.normal(0, 0.1, (30, 6))).astype(np.float32)
    config = dataclasses.replace(_CONFIG, whitening=0.2)
    model, _ = slots.fit(rows, labels, class_names=["cat", "dog", "=bird"], config=config)
    made = [(learned(model, new, root / "rows"), np.concatenate([rows[:20], new[:10]]))]

    pictures = np.clip(rng.normal(0, 30, (160, 8, 8, 1)) + 200 * _bars(160), 0, 255).astype(np.uint8)
    others = np.clip(rng.normal(0, 30, (20, 8, 8, 1)) + 200 * _bars(20).transpose(0, 2, 1, 3), 0, 255).astype(np.uint8)
    model, _ = slots.fit(
        pictures, np.arange(160) % 2, backbone=backbones.build("pixels", input_shape=(1, 8, 8)), config=_CONFIG
    )
    made.append((learned(model, others, root / "pixels"), np.concatenate([pictures[:10], others[:10]])))
    net = backbones.build("cnn", input_shape=(1, 8, 8), width=2, hidden=8)
    model, _ = slots.fit(pictures, np.arange(160) % 2, backbone=net, config=_CONFIG)
    made.append((learned(model, others, root / "cnn"), np.concatenate([pictures[:10], others[:10]])))
    made.append((of_text(root / "text"), ["what is my balance", "rain"]))
    return [Original(folder, x, known_states(folder)) for folder, x in made]


def _bars(n):
    """Pictures of bars at two heights."""
    out = np.zeros((n, 8, 8, 1))
    for i in range(n):
        out[i, (1, 5)[i % 2] : (3, 7)[i % 2]] = 1
    return out


def learned(model, new, folder):
    """Save a fit, an update of it, and one after which what is remembered guesses."""
    model.save(folder)
    model.update(new, budget=3)
    model.save(folder, keep_history=True)
    model.update(new, {0: "named"}, config=slots.UpdateConfig(recall=True))
    assert model.head.recall is not None
    model.save(folder, keep_history=True)
    return folder


def of_text(folder):
    """A model of text whose encoder is on no machine."""
    head = IncrementalNeuralHashing(feature_dim=8)
    head.add_slots(
        torch.eye(8)[:4],
        torch.tensor([0, 0, 1, 1]),
        precision_thresholds=torch.full((4,), 0.8),
        support_thresholds=torch.full((4,), 0.85),
    )
    encoder = TextBackbone("no-such-encoder", weights="0" * 16, features=8)
    model = slots.SlotModel(Preprocessing("text", ()), head, backbone=encoder, class_names=["a", "b"])
    model.thumbnails = np.full((4, 4), "some words", dtype=object)
    model.exemplar_features = torch.eye(8)[:4, None].repeat(1, 4, 1).half()
    model.history.append(Generation(0, "fit", 4, {}))
    model.save(folder)
    return folder


def known_states(folder):
    """Header and tensors of every state, as bytes that can be compared."""
    count = read_state(folder).n_generations
    return [_content(read_state(folder, place)) for place in range(count)]


def _content(state):
    tensors = {
        f"{stem}/{name}": (str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes())
        if value.numel()
        else (str(value.dtype), tuple(value.shape), b"")
        for stem, named in state.tensors.items()
        for name, value in named.items()
    }
    return json.dumps(state.header, sort_keys=True), tensors


# The changes


def mutate(rng, folder):
    """Change a copy of a model; returns what was done, and whether it is damage, not forgery."""
    kind = rng.choices(
        ["header", "tensor", "both", "file", "damage", "pointer", "kind"], weights=[5, 6, 2, 1, 3, 1, 1]
    )[0]
    if kind == "damage":
        return damage(rng, folder), True
    if kind == "kind":
        return special(rng, folder), False
    if kind == "pointer":
        pointer = json.loads((folder / "slots.json").read_bytes())
        done = [change_json(rng, pointer) for _ in range(rng.randint(1, 2))]
        (folder / "slots.json").write_text(json.dumps(pointer))
        return f"pointer: {done}", False
    pointer = json.loads((folder / "slots.json").read_bytes())
    name = pointer["current"] if rng.random() < 0.75 else rng.choice(pointer["generations"])
    state = folder / "states" / name
    document = json.loads((state / "model.json").read_bytes())
    done = []
    if kind in {"header", "both"}:
        done += [change_json(rng, document["header"]) for _ in range(rng.randint(1, 3))]
    if kind in {"tensor", "both"}:
        done += [change_tensors(rng, state, document) for _ in range(rng.randint(1, 3))]
    if kind == "file":
        done.append(change_files(rng, state, document))
    seal(folder, pointer, state, document)
    return f"{kind}: {done}", False


def seal(folder, pointer, state, document):
    """Give a state the digests and the name that belong to its content now."""
    for name in list(document["files"]):
        data = (state / name).read_bytes() if (state / name).is_file() else b""
        document["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    raw = json.dumps(document, indent=1, sort_keys=True).encode()
    (state / "model.json").write_bytes(raw)
    named = f"{state.name.split('-')[0]}-{hashlib.sha256(raw).hexdigest()[:8]}"
    state.rename(state.with_name(named))
    pointer["generations"] = [named if name == state.name else name for name in pointer["generations"]]
    pointer["current"] = named if pointer["current"] == state.name else pointer["current"]
    (folder / "slots.json").write_text(json.dumps(pointer))


def _places(document, path=()):
    """Every place in a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def change_json(rng, document):
    """Replace, remove, double or add something somewhere."""
    places = list(_places(document))
    # A place in a long list of numbers is as likely as the list, not as its hundred entries.
    holder, key = rng.choice([it for it in places if not isinstance(it[1], int)] if rng.random() < 0.6 else places)
    what = rng.choice(["odd", "odd", "odd", "remove", "double", "near", "add"])
    value = holder[key]
    if what == "remove":
        del holder[key]
    elif what == "double" and isinstance(value, list):
        value.extend(copy.deepcopy(value))
    elif what == "near" and isinstance(value, int | float) and abs(value) < 1e300:
        holder[key] = value + rng.choice([-1, 1, 0.5, -(10**6), 1e-9])
    elif what == "add" and isinstance(holder, dict):
        holder[rng.choice(_WORDS)] = copy.deepcopy(rng.choice(_ODD))
    else:
        holder[key] = copy.deepcopy(rng.choice(_ODD))
    return f"{what} {key!r:.30}"


def change_tensors(rng, state, document):
    """Change one tensor of one file."""
    name = rng.choice([*document["files"], "head.safetensors"])
    try:
        tensors = safetensors.torch.load((state / name).read_bytes())
    except Exception:  # noqa: BLE001  # changed before
        return f"{name} left"
    if not tensors:
        return f"{name} empty"
    key = rng.choice(sorted(tensors))
    value = tensors[key].clone()
    what = rng.choice(_TENSOR_CHANGES)
    odd = rng.choice(
        [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e30, -1e30, 1e-30, 2.0, 10.0**9, 2.0**62, 10.0, 100.0]
    )
    if what in {"entry", "all"} and value.numel():
        with contextlib.suppress(RuntimeError, OverflowError, ValueError):
            flat = value.view(-1)
            filled = odd if value.is_floating_point() else (bool(odd == odd) if value.dtype == torch.bool else int(odd))
            flat[rng.randrange(len(flat)) if what == "entry" else slice(None)] = filled
    elif what == "scale" and value.is_floating_point():
        value = value * odd
    elif what == "cut" and value.ndim:
        axis = rng.randrange(value.ndim)
        value = value.narrow(axis, 0, max(0, value.shape[axis] - rng.choice([1, 2]))).contiguous()
    elif what == "repeat" and value.ndim:
        value = torch.cat([value, value], rng.randrange(value.ndim))
    elif what == "flat":
        value = value.reshape(-1)
    elif what == "turn" and value.ndim > 1:
        value = value.transpose(0, 1).contiguous()
    elif what == "kind":
        value = value.to(
            rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.int8])
        )
    elif what == "empty":
        value = value[:0] if value.ndim else value.reshape(-1)[:0]
    elif what == "shuffle" and value.ndim:
        value = value[torch.randperm(len(value), generator=torch.Generator().manual_seed(rng.randrange(10**6)))]
    tensors[key] = value
    if what == "remove":
        del tensors[key]
    elif what == "rename":
        tensors[rng.choice(["x", "", "weights", key + ".", "a" * 300])] = tensors.pop(key)
    elif what == "swap":
        other = rng.choice(sorted(tensors))
        tensors[key], tensors[other] = tensors[other].clone(), tensors[key].clone()
    elif what == "add":
        tensors["classes.mean" if rng.random() < 0.5 else "extra"] = torch.zeros(3)
    (state / name).write_bytes(safetensors.torch.save(tensors))
    return f"{what} {name}:{key} {odd}"


def change_files(rng, state, document):
    """Leave out, exchange, add or fill a file with noise."""
    names = sorted(document["files"])
    name, what = rng.choice(names), rng.choice(["remove", "swap", "noise", "cut", "unlisted", "header"])
    if what == "remove":
        (state / name).unlink()
        del document["files"][name]
    elif what == "swap":
        other = rng.choice(names)
        one, two = (state / name).read_bytes(), (state / other).read_bytes()
        (state / name).write_bytes(two)
        (state / other).write_bytes(one)
    elif what == "noise":
        (state / name).write_bytes(rng.randbytes(rng.choice([0, 7, 8, 100])))
    elif what == "cut":
        (state / name).write_bytes((state / name).read_bytes()[: -rng.choice([1, 8, 64])])
    elif what == "header":  # the tensor file's own
        data = bytearray((state / name).read_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        (state / name).write_bytes(data)
    else:
        document["files"][rng.choice(["../x.safetensors", "x.py", "/etc/passwd", "new.safetensors"])] = {}
    return f"{what} {name}"


def damage(rng, folder):
    """Flip, cut or lengthen bytes of any file, digests left as they are."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    what = rng.choice(["flip", "cut", "longer", "zero", "remove"])
    if what == "flip":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del data[rng.randrange(len(data)) :]
    elif what == "longer":
        data += rng.randbytes(rng.randint(1, 64))
    elif what == "zero":
        at = rng.randrange(len(data))
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    if what == "remove":
        path.unlink()
    else:
        path.write_bytes(data)
    return f"damage: {what} {path.name}"


def special(rng, folder):
    """Put a link, a pipe or a folder in the place of something."""
    parts = sorted(path for path in folder.rglob("*") if path.name != ".lock")
    part, what = rng.choice(parts), rng.choice(["link", "away", "zero", "pipe", "folder"])
    aside = folder.parent / "aside"
    part.rename(aside)
    if what == "link":
        part.symlink_to(aside)
    elif what == "away":
        part.symlink_to("/etc/passwd")
    elif what == "zero":
        part.symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(part)
    else:
        part.mkdir()
    return f"kind: {what} {part.name}"


# What is done with a folder


def use(folder, x, beside, *, text):
    """Everything that reads a folder; returns whether it opened. Raises what nobody foresaw."""
    opened = False
    with refusals() as refused:
        log(folder)
    with refusals():
        model = slots.SlotModel.load(folder, build=backbones.build)
        opened = True
        before = model.predict(x) if not text else None
        if before is not None:
            check_answers(model, before)
        with refusals():
            found = model.assess_novelty(x, false_alarm_rate=0.2)
            assert ((found.p_values >= 0) & (found.p_values <= 1)).all(), "p-values"
        with refusals():
            model.examine(x, false_alarm_rate=0.2)
        with refusals():
            model.propose(x, budget=2)
        model.save(beside / "again")
        slots.SlotModel.load(beside / "again", build=backbones.build)
        with refusals():
            model.update(x, {0: "newer"})
            model.save(folder, keep_history=True)
            after = slots.SlotModel.load(folder, build=backbones.build).predict(x)
            matched = before.matched
            assert (after.labels[matched] == before.labels[matched]).all(), "a matched answer changed"
    for words in (
        ["log"],
        ["show"],
        ["show", "--json"],
        ["diff"],
        ["undo"],
        ["relabel", "--slots", "0", "--label", "q"],
    ):
        run(words[0], folder, *words[1:])
    del refused
    return opened


def check_answers(model, found):
    """Answers are numbers and labels that the model has."""
    thresholds = model.head.support_thresholds.numpy()
    never = ~found.matched & (thresholds[found.slots] > 1)  # the nearest slot owns nothing, so it has no edge
    assert (np.isfinite(found.margins) | (never & (found.margins == -np.inf))).all(), "margins"
    assert ((found.labels >= 0) & (found.labels < model.n_labels)).all(), "labels"
    assert ((found.slots >= 0) & (found.slots < model.head.n_slots)).all(), "slots"


@contextlib.contextmanager
def refusals():
    """Let the errors of the package pass: one sentence each, and an exit status of its own."""
    said = []
    try:
        yield said
    except Exception as error:
        if getattr(error, "exit_code", 1) == 1:
            raise
        said.append(str(error))
        if "\n" in str(error) or len(str(error)) > 2000:
            raise AssertionError(f"no one line: {error!s:.200}") from error


def run(name, folder, *options):
    """A command in this process; a status of 1 is a bug."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command([name, str(folder), *options, "--debug"])
        except SystemExit as end:
            status = end.code
    if status == 1:
        raise RuntimeError(f"slots {name}: {err.getvalue()[-1500:]}")


def one_case(number, seed, source, root, found):
    """Make, use and judge one mutant."""
    rng = random.Random(f"{seed}-{number}")
    case = root / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(source.folder, case / "model", symlinks=True)
    what, damaged = mutate(rng, case / "model")
    started = time.monotonic()
    with warnings.catch_warnings(), watched() as seen:
        warnings.simplefilter("ignore")
        try:
            if damaged:
                with refusals() as refused:
                    if _content(read_state(case / "model")) not in source.states:
                        found.blame("wrong_acceptance", number, what, "")
                found.counts["damage_refused" if refused else "damage_harmless"] += 1
            opened = use(case / "model", source.x, case, text=isinstance(source.x, list))
            found.counts["opened" if opened else "refused"] += 1
        except Exception:  # noqa: BLE001  # what we are looking for
            found.blame("raw_exception", number, what, traceback.format_exc()[-1800:])
    took = time.monotonic() - started
    found.slowest_s = max(found.slowest_s, took)
    if took > LONGEST_S:
        found.blame("too_slow", number, what, f"{took:.1f} s")
    if seen.started:
        found.blame("started", number, what, str(seen.started[:3]))
    if outside := [path for path in seen.opened_outside(case) if "pycache" not in path]:
        found.blame("read_outside", number, what, str(outside[:3]))
    found.counts["cases"] += 1
    found.counts["damaged" if damaged else "forged"] += 1


def fuzz(cases, *, seed=0, seconds=float("inf"), first=0):
    """Try so many mutants, or for so long."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found, started = Found(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = originals(root / "originals")
        for source in sources:  # an honest folder opens, and imports are over
            shutil.copytree(source.folder, root / "honest" / source.folder.name)
            assert use(root / "honest" / source.folder.name, source.x, root / "honest", text=isinstance(source.x, list))
            shutil.rmtree(root / "honest")
        for number in range(first, first + cases):
            if time.monotonic() - started > seconds:
                break
            one_case(number, seed, sources[number % len(sources)], root, found)
    return found


def main():
    """Fuzz, print what came of it, and fail where something must not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5)
    arguments = parser.parse_args()
    found = fuzz(arguments.cases, seed=arguments.seed, seconds=arguments.seconds, first=arguments.first)
    for bad in found.bad[: arguments.show]:
        sys.stderr.write(json.dumps(bad, indent=1).replace("\\n", "\n") + "\n")
    sys.stdout.write(json.dumps({**found.counts, "slowest_s": round(found.slowest_s, 2)}) + "\n")
    sys.exit(bool(found.bad))


if __name__ == "__main__":
    main()
