"""Accuracy after an update: fit without some classes, then learn them from a stream with few labels, beside peers.

    python benchmarks/slot_update.py --data-dir FOLDER --data mnist --held-out 8 9 --output FILE.json

FOLDER (or SLOTS_DATA_DIR) holds NAME.npz. The model is fitted on those of the first 40,000 training images that are not
of the held-out classes; the stream is the other 20,000, of all classes; the test images are seen by nothing. Two heads:
"slots" is ours (`SlotModel.update`), "prototypes" nearest neighbour by cosine among 1,000 k-means prototypes of the
same images, to which each labelled example is added as it is. Both are fed by each way to choose what to label:

- unmatched cover: `SlotModel.propose`
- random
- margin: least difference of the two best classes (Scheffer et al. 2001), all at once
- k-center: farthest first, from the prototypes (Sener and Savarese 2018)
- ProbCover (Yehuda et al. 2022): most examples within a radius that no prototype has within it. The radius is the
  largest at which 95 % of the balls are pure by k-means clusters, the paper's rule; "ProbCover, best radius" is the
  best of it and five others by the accuracy on the test images, which nobody can know beforehand.

``control`` looks the asked labels up and adds no slot. ``--models FOLDER`` keeps fitted models. Rows of other settings
stay in the output; ``--quick`` (the general recipe of pixels, without views) wants a file of its own.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from slot_update_peers import Prototypes, peer_choices

import backbones
from protocols.data import load_data
from protocols.recipes import find_recipe
from slots.model import SlotModel
from slots.predictions import changed_matched
from slots.training import fit

FITTED_ON, REACH = 40_000, 0.8
OURS = "unmatched cover"


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    rows, passing = [], tempfile.TemporaryDirectory()
    arguments.models = arguments.models or Path(passing.name)  # every update starts from the same saved model
    split = make_split(arguments)
    write = writer(rows, arguments)
    model, fit_s = fitted(split, arguments)
    proposal, choices = our_part(model, fit_s, split, arguments, write)
    save(arguments, rows)
    if "prototypes" in arguments.beside:
        for seed in arguments.peer_seeds:
            chosen = prototypes_part(split, choices, seed, arguments, write)
            choices = chosen if seed == arguments.peer_seeds[0] else choices
            save(arguments, rows)
        if "peers" in arguments.beside:
            for budget in arguments.peer_budgets:
                peers_on_slots(split, proposal, choices, budget, arguments, write)
                save(arguments, rows)


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SLOTS_DATA_DIR"))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--held-out", nargs="*", type=int, default=[8, 9], help="none: no class is new")
    parser.add_argument("--budgets", nargs="+", type=int, default=[50, 100, 200, 500])
    parser.add_argument("--peer-budgets", nargs="+", type=int, default=[100, 500], help="of peers' choices on our head")
    parser.add_argument("--beside", nargs="*", default=["prototypes", "peers"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="general recipe without views: a tenth of the time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def make_split(arguments):
    """Base, stream and test images."""
    data = load_data(arguments.data, data_dir=arguments.data_dir)
    x, y = data.x_train[:FITTED_ON], data.y_train[:FITTED_ON]
    base = ~np.isin(y, arguments.held_out)
    return SimpleNamespace(
        x=x[base],
        y=y[base],
        stream=data.x_train[FITTED_ON:],
        stream_y=data.y_train[FITTED_ON:],
        test=data.x_test,
        test_y=data.y_test,
        new=np.array(arguments.held_out, np.int64),
        class_names=data.class_names,
    )


def fitted(split, arguments):
    """The model before the update, and the seconds of its fit (None where it was kept)."""
    name = "".join(map(str, arguments.held_out)) or "-"
    kept = arguments.models / f"{arguments.data}-{name}-s{arguments.seed}{'-quick' * arguments.quick}"
    if kept.exists():
        return SlotModel.load(kept, build=backbones.build), None
    recipe = find_recipe("pixels", "" if arguments.quick else arguments.data).train
    if arguments.quick:
        recipe = replace(recipe, views="none")
    config = replace(recipe, seed=arguments.seed, closing=replace(recipe.closing, reach=REACH))
    backbone = backbones.build("pixels", input_shape=(1, *split.x.shape[1:3]))
    started = time.perf_counter()
    model, _ = fit(split.x, split.y, backbone=backbone, config=config, class_names=split.class_names)
    seconds = time.perf_counter() - started
    model.save(kept)
    return model, seconds


def our_part(model, fit_s, split, arguments, write):
    """Propose once (a smaller budget is the start of a larger one), update with each budget."""
    started = time.perf_counter()
    proposal = model.propose(split.stream, budget=max(arguments.budgets))
    propose_s = time.perf_counter() - started
    before, at_test = proposal.prediction, model.predict(split.test)
    write(
        head="slots",
        queries="before",
        budget=0,
        slots=model.head.n_slots,
        fit_s=fit_s,
        propose_s=propose_s,
        **figures(split, before, at_test, proposal.queries[:0]),
        new_unmatched_stream=share(~before.matched, np.isin(split.stream_y, split.new)),
        new_unmatched_test=share(~at_test.matched, np.isin(split.test_y, split.new)),
        old_matched_test=share(at_test.matched, ~np.isin(split.test_y, split.new)),
        unmatched_by_class={str(c): share(~before.matched, split.stream_y == c) for c in range(10)},
    )
    split.before, split.before_test = before, at_test
    for budget in arguments.budgets:
        cut = replace(proposal, queries=proposal.queries[:budget], gains=proposal.gains[:budget])
        one_update(split, cut, cut.queries, OURS, budget, arguments, write, everywhere=True)
    return proposal, {OURS: proposal.queries}


def one_update(split, proposal, asked, name, budget, arguments, write, *, everywhere):
    """Give the labels of the asked rows to a fresh copy of the model and look at what changed."""
    model, _ = fitted(split, arguments)
    started = time.perf_counter()
    done = model.update(split.stream, {int(i): int(split.stream_y[i]) for i in asked}, proposal=proposal)
    seconds = time.perf_counter() - started
    after = model.predict(split.stream) if everywhere else None
    at_test = model.predict(split.test)
    fresh = at_test.matched & ~split.before_test.matched
    changed = len(changed_matched(split.before_test, at_test))
    if after is not None:
        changed += len(changed_matched(split.before, after))
    write(
        head="slots",
        queries=name,
        budget=budget,
        labels_asked=len(asked),
        labels_used=done.labels_used,
        slots_added=done.slots_added,
        update_s=seconds,
        changed_matched_answers=changed,
        **figures(split, after, at_test, asked),
        control_test=share(split.before_test.labels == split.test_y),
        control_stream=share(looked_up(split, asked) == split.stream_y),
        newly_matched_test=share(fresh),
        newly_matched_right=share(at_test.labels == split.test_y, fresh),
        matched_test=share(at_test.matched),
        matched_right=share(at_test.labels == split.test_y, at_test.matched),
    )


def looked_up(split, asked):
    """Answers of the old model, the asked ones replaced by what was told."""
    answers = split.before.labels.copy()
    answers[asked] = split.stream_y[asked]
    return answers


def figures(split, stream, test, asked):
    """Accuracy on the test images by part, and on the stream where it was answered."""
    right, new = test.labels == split.test_y, np.isin(split.test_y, split.new)
    found = {"test": share(right), "test_new_classes": share(right, new), "test_old_classes": share(right, ~new)}
    if stream is not None:
        never = np.ones(len(stream), bool)
        never[asked] = False
        correct = stream.labels == split.stream_y
        found |= {"stream": share(correct), "stream_never_asked": share(correct, never)}
        if hasattr(split, "before"):
            found["stream_never_asked_before"] = share(split.before.labels == split.stream_y, never)
    return found


def share(hits, among=None):
    """Mean over a part; None where it is empty."""
    hits = hits if among is None else hits[among]
    return float(hits.mean()) if len(hits) else None


def prototypes_part(split, choices, seed, arguments, write):
    """The table's classical setting; returns what each way chose."""
    head = Prototypes(split, seed)
    write(head="prototypes", queries="before", budget=0, peer_seed=seed, **figures(split, None, head.answer([]), []))
    chosen = peer_choices(head, split, max(arguments.budgets), seed) | choices
    for budget in arguments.budgets:
        best = None
        for name, rows in chosen.items():
            asked = rows[:budget]
            row = figures(split, None, head.answer(asked), asked)
            if name.startswith("ProbCover"):
                best = row if best is None or row["test"] > best["test"] else best
            if name.startswith("ProbCover, radius"):
                continue
            write(head="prototypes", queries=name, budget=budget, labels_asked=len(asked), peer_seed=seed, **row)
        write(head="prototypes", queries="ProbCover, best radius", budget=budget, peer_seed=seed, **best)
    return chosen


def peers_on_slots(split, proposal, choices, budget, arguments, write):
    """The same choices on our head: what the choice alone is worth."""
    bare = replace(proposal, queries=proposal.queries[:0], gains=proposal.gains[:0])
    for name in ("random", "margin", "k-center", "ProbCover"):
        one_update(split, bare, choices[name][:budget], name, budget, arguments, write, everywhere=False)


def writer(rows, arguments):
    """Function that adds a row and prints it."""
    held_out = ",".join(map(str, arguments.held_out))

    def write(**row):
        rows.append({"data": arguments.data, "held_out": held_out, "seed": arguments.seed} | row)
        new = row.get("test_new_classes")
        print(
            f"{arguments.data} {held_out:4} {row['head']:10} {row['queries']:24} {row['budget']:4} test "
            f"{100 * row['test']:.2f} new {100 * (new or 0):.1f} changed {row.get('changed_matched_answers', '')}",
            flush=True,
        )

    return write


def save(arguments, rows):
    """Write what there is so far; rows of other settings in the file stay."""
    if not arguments.output:
        return
    kept = []
    if arguments.output.exists():
        mine = (arguments.data, ",".join(map(str, arguments.held_out)), arguments.seed)
        before = json.loads(arguments.output.read_text())["rows"]
        kept = [row for row in before if (row["data"], row["held_out"], row["seed"]) != mine]
    document = {
        "schema": 1,
        "what": "accuracy after an update with few labels, beside other ways to choose them and another head",
        "command": "python benchmarks/slot_update.py --data-dir FOLDER --data NAME --held-out CLASSES --output FILE",
        "fitted_on": FITTED_ON,
        "reach": REACH,
        "quick": arguments.quick,
        "threads": arguments.threads,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "torch", "scikit-learn", "numba")},
        },
        "rows": kept + [rounded(row) for row in rows],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def rounded(row):
    """The same with five places."""
    return {
        key: rounded(it) if isinstance(it, dict) else round(it, 5) if isinstance(it, float) else it
        for key, it in row.items()
    }


def processor():
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
