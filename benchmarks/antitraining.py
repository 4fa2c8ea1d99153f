"""Size of the core of an MLP on MNIST: antitraining beside the same training without, L1 pruning, dropout, small nets.

    python benchmarks/antitraining.py --data-dir FOLDER --output benchmarks/results/antitraining.json
    python benchmarks/antitraining.py --draw docs/antitraining.png

One hidden layer. Each row of the result is one network cut to ``size`` neurons (the others are constants at their mean,
which moves into the biases), tested before (``cut``) and after (``tuned``) the same few epochs of fine-tuning. Kinds:
``antitraining``, cut to its core; ``control``, the same rounds without antitraining, cut to its own core; ``control at
the size``, cut to as many neurons as antitraining needs, the most informative; ``L1``: the control, cut to as many, by
`torch.nn.utils.prune.ln_structured` (n=1) on the incoming weights; ``dropout``: trained with dropout 0.5 for as many
epochs, cut to as many, the most informative; ``scratch``: a network of that width, trained for as many epochs as the
others' training and fine-tuning. Information and cores are measured on images that no network is trained on and that
are no test images.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn.utils import prune

from backbones.pruning.ablation import running_statistics
from backbones.pruning.adjacent_layers import surroundings
from backbones.pruning.antitraining import AntitrainingConfig, antitrain, find_core, train
from backbones.pruning.compression import compress
from protocols.data.loading import load_data
from protocols.provenance import commit, processor

HELD_OUT = 2000
LAYER = "1"


def main():
    """Measure each width and seed; write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--tuning", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/antitraining.json"))
    parser.add_argument("--draw", type=Path, help="draw the figure of --output and do nothing else")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(json.loads(arguments.output.read_text())["rows"], arguments.draw)
        return
    torch.set_num_threads(1)
    data = load_data("mnist", data_dir=arguments.data_dir)
    images = torch.as_tensor(data.x_train).reshape(len(data.x_train), -1).float() / 255
    labels = torch.as_tensor(data.y_train).long()
    test = (
        torch.as_tensor(data.x_test).reshape(len(data.x_test), -1).float() / 255,
        torch.as_tensor(data.y_test).long(),
    )
    cut = arguments.examples
    batches = [(images[at : at + 200], labels[at : at + 200]) for at in range(0, cut, 200)]
    held_out = [(images[at : at + 1000], labels[at : at + 1000]) for at in range(cut, cut + HELD_OUT, 1000)]
    rows = []
    for seed in arguments.seeds:
        for width in arguments.widths:
            config = AntitrainingConfig(lr=2e-3, seed=seed)
            rows += one(width, batches, held_out, test, config, arguments.tuning)
            save(arguments, rows, config, data.digest)


def one(width, batches, held_out, test, config, tuning):
    """All kinds at one width."""
    started, rows = time.perf_counter(), []

    def add(kind, model, keep):
        known = {LAYER: running_statistics(model, LAYER, held_out)}
        smaller = compress(model, {LAYER: keep}, test[0][:100], fill="mean", statistics=known).model
        row = {"seed": config.seed, "width": width, "kind": kind, "size": len(keep), "full": accuracy(model, test)}
        row["cut"] = accuracy(smaller, test)
        tune(smaller, batches, tuning, lr=config.lr / 2)
        rows.append({**row, "tuned": accuracy(smaller, test)})
        print(rows[-1], flush=True)

    torch.manual_seed(config.seed)
    model = mlp(width)
    report = antitrain(model, [LAYER], batches, measured_on=held_out, config=config)
    core, without = report.core(LAYER), report.control_core(LAYER)
    size = len(core.neurons)
    control = report.control_model
    place = surroundings(control, LAYER, test[0][:2])
    add("antitraining", model, core.neurons)
    rows[-1] |= {"cores": [len(entry.core.neurons) for entry in report.rounds], "core_accuracy": core.core_accuracy}
    add("control", control, without.neurons)
    rows[-1] |= {"cores": [len(entry.core.neurons) for entry in report.control], "core_accuracy": without.core_accuracy}
    add("control at the size", control, without.ranking[:size])
    add("L1", control, by_l1(control, size))
    dropped = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 10))
    tune(dropped, batches, config.rounds * config.epochs, lr=config.lr)
    plain = nn.Sequential(dropped[0], dropped[1], dropped[3])
    own = find_core(plain, place, held_out, config)
    add("dropout", plain, own.ranking[:size])
    rows[-1]["core"] = len(own.neurons)
    scratch = mlp(size)
    tune(scratch, batches, config.rounds * config.epochs, lr=config.lr)
    add("scratch", scratch, torch.arange(size))
    rows[0]["elapsed_s"] = round(time.perf_counter() - started, 1)
    return rows


def mlp(width):
    """784 pixels, one hidden layer, 10 classes."""
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def tune(model, batches, epochs, lr):
    """Train on with Adam."""
    train(model, batches, epochs=epochs, optimiser=torch.optim.Adam(model.parameters(), lr=lr))


@torch.no_grad()
def accuracy(model, test):
    """Share of the test images that are right."""
    return (model.eval()(test[0]).argmax(1) == test[1]).float().mean().item()


def by_l1(model, size):
    """What ln_structured keeps."""
    layer = nn.Linear(*model[0].weight.shape[::-1])
    layer.load_state_dict(model[0].state_dict())
    prune.ln_structured(layer, "weight", amount=layer.out_features - size, n=1, dim=0)
    return layer.weight_mask.any(1).nonzero().flatten()


def save(arguments, rows, config, digest):
    """JSON with all that is needed to do it again."""
    options = f"--widths {' '.join(map(str, arguments.widths))} --seeds {' '.join(map(str, arguments.seeds))}"
    document = {
        "data": "mnist",
        "data_digest": digest,
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {options} --examples {arguments.examples} "
        f"--tuning {arguments.tuning}",
        "config": asdict(config),
        "seeds": arguments.seeds,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def draw(rows, path):
    """Left: size of the core against width; right: test accuracy of the cut networks against width."""
    picture = Image.new("RGB", (1240, 520), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    widths = sorted({row["width"] for row in rows})
    colours = {"antitraining": "#c62820", "control": "#1f5fbf", "control at the size": "#1f5fbf", "L1": "#2e8b57"}
    colours |= {"dropout": "#b8860b", "scratch": "#777777"}

    def panel(left, title, kinds, value, low, high, step, form):
        box = (left + 60, 50, left + 560, 400)
        pen.text((left + 60, 15), title, fill="black", font=font)

        def at(index, number):
            return (
                box[0] + 20 + index * (box[2] - box[0] - 40) / max(1, len(widths) - 1),
                box[3] - (number - low) / (high - low) * (box[3] - box[1]),
            )

        tick = low
        while tick <= high + 1e-9:
            y = at(0, tick)[1]
            pen.line((box[0], y, box[2], y), fill="#dddddd")
            pen.text((box[0] - 8, y), form(tick), fill="black", font=font, anchor="rm")
            tick += step
        for index, width in enumerate(widths):
            pen.text((at(index, low)[0], box[3] + 8), str(width), fill="black", font=font, anchor="mt")
        pen.text(
            ((box[0] + box[2]) / 2, box[3] + 30), "neurons in the hidden layer", fill="black", font=font, anchor="mt"
        )
        for place, kind in enumerate(kinds):
            points = []
            for index, width in enumerate(widths):
                held = [value(row) for row in rows if row["width"] == width and row["kind"] == kind]
                points += [at(index, sum(held) / len(held))] if held else []
                for number in held:
                    x, y = at(index, max(low, number))
                    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colours[kind])
            pen.line(points, fill=colours[kind], width=3)
            x, y = box[0] + 250 * (place % 2), box[3] + 56 + 22 * (place // 2)
            pen.rectangle((x, y + 4, x + 22, y + 12), fill=colours[kind])
            pen.text((x + 30, y), kind, fill="black", font=font)

    cores = [row["size"] for row in rows if row["kind"] == "control"]
    high = 100 * (1 + max(cores) // 100)
    panel(
        10,
        "Size of the core (neurons)",
        ["antitraining", "control"],
        lambda r: r["size"],
        0,
        high,
        high / 5,
        "{:.0f}".format,
    )
    lowest = min(row["cut"] for row in rows)
    low = int(lowest * 10) / 10
    kinds = ["antitraining", "control at the size", "L1", "dropout"]
    title = "Test accuracy cut to antitraining's core, no fine-tuning (%)"
    panel(640, title, kinds, lambda r: 100 * r["cut"], 100 * low, 100, 10, "{:.0f}".format)
    picture.quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main()
