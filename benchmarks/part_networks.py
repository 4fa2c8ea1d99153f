"""ProtoPNet and PIP-Net (CaBRNet) on the encoder of a model of parts, beside that model.

    slots fit --backbone parts --data cifar10 --out runs/cifar10-parts
    python benchmarks/part_networks.py --model runs/cifar10-parts --output benchmarks/results/part_networks.json

All begin with the encoder's weights and train it further, on all training images, with the recipe's flips and shifts;
part_network_kinds.py says how. ``linear``, a linear layer on the mean over all patches, is what the encoder can do
where nothing need be shown. A row of the file is replaced when its kind is measured again, so kinds may be run one by
one. The peers need, in an environment of its own or in a folder on PYTHONPATH, beside what slots needs::

    pip install onnx onnxruntime captum pyyaml tqdm setuptools
    pip install --no-deps cabrnet==1.2 loguru graphviz thop onnx_graphsurgeon opencv-python-headless

Without ``--no-deps`` the library brings a web interface, a scheduler and old versions of much else, unused here.

What decides: of ProtoPNet and PIP-Net, prototypes whose evidence times weight for the class that won exceeds 0.001
(PIP-Net's "local size"), and of PIP-Net also those of them whose presence is 0.1 or more, since its authors set smaller
ones to 0 when they decide; ``against`` counts ProtoPNet's below -0.001. Of ours: different parts of a decision, on
1,000 images. A prototype sees ``receptive_field`` pixels a side, exactly: nothing on top of the encoder looks further.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from part_network_kinds import KINDS, Batches, Plan

from backbones.layers.whitening_stem import WhiteningStem
from backbones.parts import Parts
from protocols.data.loading import load_data
from protocols.provenance import commit, hardware, versions
from protocols.recipes.building import load_model
from slots.errors import SlotsError
from slots.parts import explain_by_parts

LEAST = 1e-3  # evidence times weight that is counted
PRESENT = 0.1  # presence that PIP-Net's authors count as found
TAKEN_APART = 1000  # test images of which our parts are counted


def encoder_of(model):
    """A copy of what lies below the parts of a model, ready to be trained, and its channels."""
    if not isinstance(model.backbone, Parts):
        raise SystemExit("`--model` must have parts, got another backbone. Make one: slots fit --backbone parts.")
    encoder = copy.deepcopy(model.backbone.encoder[0]).requires_grad_(True)
    for layer in encoder.modules():
        if isinstance(layer, WhiteningStem):
            layer.requires_grad_(False)
    return encoder, model.backbone.encoder[1].in_channels


def deciding(evidence, weights, answers):
    """How many prototypes speak for the answer, and how many against it.

    Parameters
    ----------
    evidence : float tensor of shape (example, prototype)
        How much of each prototype was found, >= 0.
    weights : float tensor of shape (class, prototype)
        Of the last layer.
    answers : int64 tensor of shape (example,)
        The class that won.

    Returns
    -------
    int64 tensors of shape (example,)
        Prototypes for it, and against it.
    """
    shares = evidence * weights[answers]
    return (shares > LEAST).sum(1), (shares < -LEAST).sum(1)


def answered(kind, model, x):
    """Scores of the classes; evidence and weights, where there are prototypes."""
    if kind == "linear":
        return model(x), None, None
    weights = model.classifier.last_layer.weight
    if kind == "pipnet":
        _, presence, scores = model(x)
        return scores, presence, weights.relu()  # as its layer takes them
    scores, distances = model(x)
    return scores, model.classifier.distances_to_similarities(distances), weights


@torch.no_grad()
def measured(kind, model, batches):
    """Accuracy, and prototypes of a decision, on test images."""
    model.eval()
    right, counts = [], []
    for x, y in batches:
        scores, evidence, weights = answered(kind, model, x)
        answers = scores.argmax(1)
        right.append(answers == y)
        if evidence is not None:
            clear = torch.where(evidence < PRESENT, 0.0, evidence)
            counts.append(torch.stack([*deciding(evidence, weights, answers), deciding(clear, weights, answers)[0]], 1))
    found = {"accuracy": torch.cat(right).double().mean().item()}
    if counts:
        of, against, clearly = torch.cat(counts).double().mean(0).tolist()
        more = {"of_presence": clearly} if kind == "pipnet" else {"against": against}
        found |= {"prototypes": int((weights.abs() > LEAST).any(0).sum()), "prototypes_a_decision": of, **more}
    return found


def ours(model, data):
    """The row of the model itself."""
    answers = explain_by_parts(model, data.x_test[:TAKEN_APART])
    return {
        "accuracy": float((model.predict(data.x_test).labels == data.y_test).mean()),
        "prototypes": model.backbone.n_parts,
        "prototypes_a_decision": float(np.mean([len({it.part for it in answer.shares}) for answer in answers])),
    }


def peer(kind, model, data, args):
    """The row of one kind: what it is at the end, and at the stages before."""
    encoder, width = encoder_of(model)
    torch.manual_seed(args.seed)
    training = functools.partial(Batches, data.x_train, data.y_train, model.preprocessing, size=args.batch)
    test = Batches(data.x_test, data.y_test, model.preprocessing, size=500)
    more = {"colours": not args.plain_views} if kind == "pipnet" else {}
    stages = KINDS[kind](encoder, width, len(data.class_names), training, Plan(args.epochs, args.rate), **more)
    row, seconds, started = {}, 0.0, time.process_time()
    for stage, net in stages:
        seconds += time.process_time() - started
        found = measured(kind, net, test)
        print(f"{kind} {stage}: {json.dumps(found)}", file=sys.stderr, flush=True)
        row = {**row, **({stage: found} if stage else found)}
        started = time.process_time()
    return {**row, "training_cpu_s": round(seconds)}


def keep(row, output):
    """Put a row into the file, in the place of an older one of its kind."""
    if output is None:
        return
    rows = json.loads(output.read_text()) if output.exists() else []
    rows = [it for it in rows if it["kind"] != row["kind"]]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([*rows, row], indent=1) + "\n")


def quiet():
    """Leave the library's own reports out, or say that it is missing, or something that it imports."""
    try:
        import cabrnet.archs.pipnet.model
        import cabrnet.archs.protopnet.model  # noqa: F401
        from loguru import logger
    except ImportError as error:
        raise SystemExit(
            f"protopnet and pipnet need cabrnet ({error}). --help says how, or take --kinds linear."
        ) from None
    logger.disable("cabrnet")


def main(arguments=None):
    """Measure the model and the kinds that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model of parts")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--epochs", type=int, default=14, help="in which all is trained; about a third as many are added"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="of the encoder")
    parser.add_argument("--batch", type=int, default=100, help="images of a step")
    parser.add_argument("--plain-views", action="store_true", help="leave the colours of PIP-Net's views as they are")
    parser.add_argument("--examples", type=int, help="training images, and test images; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="that is written down; default: the one of this checkout")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(arguments)
    if set(args.kinds) - {"linear"}:
        quiet()
    torch.set_num_threads(args.threads)
    try:
        model, data = load_model(args.model, device="cpu"), load_data(args.data, data_dir=args.data_dir)
    except SlotsError as error:
        raise SystemExit(str(error)) from None
    encoder_of(model)
    data = replace(
        data, **{name: getattr(data, name)[: args.examples] for name in ("x_train", "y_train", "x_test", "y_test")}
    )
    said = ["FOLDER" if it.startswith("/") else it for it in (arguments or sys.argv[1:])]
    shared = {
        "data": data.name,
        "data_digest": data.digest,
        "train": len(data.x_train),
        "test": len(data.x_test),
        "receptive_field": model.backbone.options["receptive_field"],
        "command": " ".join(["python benchmarks/part_networks.py", *said]),
        "commit": args.commit or commit(),
        "machine": hardware(),
        "versions": versions("cabrnet"),
    }
    keep({"kind": "ours", **ours(model, data), **shared}, args.output)
    settings = {"seed": args.seed, "epochs": args.epochs, "rate": args.rate, "batch": args.batch}
    for kind in args.kinds:
        row = {"kind": kind, **peer(kind, model, data, args), **settings, **shared}
        print(json.dumps(row, indent=1))
        keep(row, args.output)


if __name__ == "__main__":
    main()
