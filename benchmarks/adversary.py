"""A search for any input whose matched answer an update has changed, on a real model; and controls that it must find.

    PYTHONPATH=tests python benchmarks/adversary.py MODEL --data NAME.npz --output benchmarks/results/adversary.json

MODEL is a folder that `slots fit` wrote; NAME.npz holds x_train (the stream of the update), y_train (the answers to its
queries) and x_test. MODEL is updated in memory, once carved (the default) and once with disjoint balls. Then:

- features: gradient ascent on the sphere into an old slot and a new one of another label at once; walks from there to
  the edges; points on the edges of both caps, up to 1e-4 rad to either side; alone and as inputs of all views;
- images: gradient ascent on the pixels through all views, rounded to grey levels, from the stream and from unseen ones;
- controls, which must find changed answers: new slots that speak first; one old slot moved by 1e-3; in disjoint mode
  new radii larger by 1e-3 rad must give inputs that an old slot of another label and a new one both hold.

The search itself is tests/support/adversary.py.
"""

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from support.adversary import Tally, input_search, rivals, sphere_search

import backbones
from protocols.provenance import commit, processor
from slots.head.caps import free_radius
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.update.config import UpdateConfig

ROWS = 12  # of both modes together


def main():
    """Measure, print, write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with np.load(arguments.data) as data:
        stream, answers, unseen, truth = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    stream, unseen, truth = stream[: arguments.stream], unseen[: arguments.unseen], truth[: arguments.unseen]
    old = SlotModel.load(arguments.model, build=backbones.build)
    proposal = old.propose(stream, budget=arguments.budget)
    labels = {int(i): int(answers[i]) for i in proposal.queries}
    updates, rows = {}, []
    searches = []
    for mode in ("carved", "disjoint"):
        new = copy.deepcopy(old)
        done = new.update(stream, labels, proposal=proposal, config=UpdateConfig(disjoint=mode == "disjoint"))
        updates[mode] = describe(old, new, done, unseen, truth)
        print(mode, updates[mode], flush=True)
        searches.append(search(old, new, mode, (stream, unseen), arguments))
    for row in (row for pair in zip(*searches, strict=True) for row in pair):  # whoever stops it has some of each
        rows.append(row)
        write(old, updates, rows, arguments)


def write(old, updates, rows, arguments):
    """The result so far, after every row: whoever stops the search keeps what it found."""
    result = {
        "schema": 1,
        "what": "inputs whose matched answer an update changed: none; controls: some",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "command": " ".join(["PYTHONPATH=tests python benchmarks/adversary.py", *shown(sys.argv[1:])]),
        "commit": commit(),
        "machine": {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        "model": {"slots": old.head.n_slots, "views": old.views.n_views, "features": old.head.feature_dim},
        "updates": updates,
        "stopped_early": len(rows) < ROWS,
        "rows": rows,
        "points_without_controls": sum(row["points"] for row in rows if not row["control"]),
        "changed_without_controls": sum(row["changed"] for row in rows if not row["control"]),
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def parse():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=200, help="labels asked for")
    parser.add_argument("--stream", type=int, default=20_000, help="images of x_train that the update gets")
    parser.add_argument("--unseen", type=int, default=10_000, help="images of x_test that it is measured on")
    parser.add_argument("--starts", type=int, default=60_000, help="ascents on the sphere, 33 points each")
    parser.add_argument("--images", type=int, default=1000, help="ascents on pixels, 3 images each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no new ascents on the sphere after that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def describe(old, new, done, unseen, truth):
    """What the update did, and how much room disjoint balls would have."""
    n_old, caps = old.head.n_slots, old.head.caps()
    room = free_radius(new.head.centres[n_old:], new.head.labels[n_old:], caps).rad2deg().numpy()
    limits = new.head.support_thresholds[n_old:].double()
    radius = torch.where(limits < 1, limits.clamp(-1, 1).arccos().rad2deg(), 0.0).numpy()
    before, after = old.predict(unseen), new.predict(unseen)
    fresh = after.matched & ~before.matched
    quantiles = [0.0, 0.1, 0.5, 0.9, 1.0]
    return {
        "unmatched_in_stream": done.n_unmatched,
        "labels_used": done.labels_used,
        "slots_added": done.slots_added,
        "slots_that_can_match": int((limits < 1).sum()),
        "free_radius_deg": np.round(np.quantile(room, quantiles), 2).tolist(),
        "support_radius_deg": np.round(np.quantile(radius, quantiles), 2).tolist(),
        "member_angle_deg": np.round(
            np.quantile(member_angles(new, unseen[~before.matched][:2000]), quantiles), 2
        ).tolist(),
        "unseen": len(unseen),
        "unseen_matched_before": round(float(before.matched.mean()), 4),
        "unseen_matched_after": round(float(after.matched.mean()), 4),
        "unseen_newly_matched": int(fresh.sum()),
        "unseen_newly_matched_right": round(float((after.labels == truth)[fresh].mean()), 4) if fresh.any() else None,
        "unseen_right_before": round(float((before.labels == truth).mean()), 4),
        "unseen_right_after": round(float((after.labels == truth).mean()), 4),
    }


@torch.no_grad()
def member_angles(new, images):
    """Degrees from each image that was unmatched to the nearest new centre, by its best view."""
    centres = new.head.centres[new.head.generations == new.generation]
    found = [(normalize(new.features(images[rows])) @ centres.T).amax((1, 2)) for rows in new.blocks(len(images))]
    return torch.cat(found).clamp(-1, 1).arccos().rad2deg().numpy()


def search(old, new, mode, images, arguments):
    """Rows of one update, one by one: the search and its controls."""
    old_caps, caps, n_old = old.head.caps(), new.head.caps(), old.head.n_slots
    first = replace(caps, generations=torch.where(torch.arange(len(caps.labels)) < n_old, caps.generations, -1))
    moved = caps.weights.clone(), caps.centres.clone()
    generator = torch.Generator().manual_seed(arguments.seed)
    slot = int(rivals(caps, n_old, 2000, generator)[0].mode().values)  # one that the search visits often
    for vectors in moved:
        push = torch.randn(vectors.shape[1], generator=generator)
        vectors[slot] = normalize(vectors[slot] + 1e-3 * normalize(push))
    fewer = max(1, arguments.starts // 20)
    chosen = pick(old, images, arguments)
    yield measured(mode, "images", lambda: pixels(old, new, chosen))
    speaks_first = copy.deepcopy(new)
    speaks_first.head.generations[n_old:] = -1
    few = chosen[:: max(1, len(chosen) // 200)]
    yield measured(mode, "new slots speak first, images", lambda: pixels(old, speaks_first, few), control=True)
    shifted = replace(caps, weights=moved[0], centres=moved[1])
    control = lambda caps: lambda: spheres(old_caps, caps, fewer, 1, arguments)  # noqa: E731
    yield measured(mode, "an old slot moved by 1e-3", control(shifted), control=True)
    if mode == "carved":
        yield measured(mode, "new slots speak first", control(first), control=True)
    else:  # with disjoint balls single views cannot tell who speaks first
        support, fires = caps.support.clone(), caps.support[n_old:] < 1
        support[n_old:][fires] = (support[n_old:][fires].double().arccos() + 1e-3).cos().float()
        yield measured(mode, "new radii larger by 1e-3", control(replace(caps, support=support)), control=True)
    yield measured(mode, "features, all views", lambda: spheres(old_caps, caps, fewer, new.views.n_views, arguments))
    yield measured(mode, "features, one view", lambda: spheres(old_caps, caps, arguments.starts, 1, arguments))


def spheres(old_caps, caps, starts, n_views, arguments, block=2000):
    """The search on the sphere, a block of starts at a time."""
    generator, total = torch.Generator().manual_seed(arguments.seed), Tally()
    clock = time.perf_counter()
    for start in range(0, starts, block):
        if time.perf_counter() - clock > arguments.seconds:
            break
        total += sphere_search(old_caps, caps, min(block, starts - start), generator, n_views=n_views)
    return total


def pick(old, images, arguments):
    """Images of the stream and unseen ones, half of them matched, half not."""
    rng, found = np.random.default_rng(arguments.seed), []
    for whole in images:
        x = whole[rng.permutation(len(whole))[: 2 * arguments.images]]
        matched = old.predict(x).matched
        found += [x[mask][: arguments.images // 4] for mask in (matched, ~matched)]
    return np.concatenate(found)


def pixels(old, new, images, block=50):
    """The search on pixels."""
    return sum((input_search(old, new, images[i : i + block]) for i in range(0, len(images), block)), Tally())


def measured(mode, what, run, *, control=False):
    """One row, printed."""
    start = time.perf_counter()
    row = {"mode": mode, "search": what, "control": control} | asdict(run())
    row["elapsed_s"] = round(time.perf_counter() - start, 1)
    print(row, flush=True)
    return row


def shown(words):
    """The command without the folders of this machine."""
    return [Path(word).name if "/" in word and "benchmarks" not in word else word for word in words]


if __name__ == "__main__":
    main()
