"""From a data set and a backbone's name to a model on disk, measured: what ``slots fit`` does."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import backbones
from protocols.data import Dataset
from protocols.evaluation import Evaluation, evaluate
from protocols.recipes import Recipe, find_recipe
from slots.errors import DataError, StorageError, UsageError
from slots.model import Generation, SlotModel, generation_of
from slots.store import check_target, read_headers
from slots.training import FitResult, fit

SCHEMA = 1
"""Version of the JSON that `FitSummary.as_json` writes."""

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class FitSummary:
    """What a fit reached, in the order it is printed; shares lie in [0, 1], None where there was nothing to measure."""

    schema: int
    command: str
    data: str
    data_digest: str
    backbone: str
    n_slots: int
    slots_per_class: dict[str, int]
    train_accuracy: float | None
    train_matched: float | None
    train_precision: float | None
    test_accuracy: float | None
    test_matched: float | None
    test_ambiguous: float | None
    test_accuracy_matched: float | None
    contradictions: list[int]
    interrupted: bool
    elapsed_s: float
    epochs: int
    seed: int
    device: str
    model: str
    report: str
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """All fields as a dict that JSON can hold."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    names = ("neural-slots", "torch", "numpy", "scikit-learn", "numba")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def pick_device(name: str) -> str:
    """The device to run on: ``"auto"`` takes the first GPU where there is one.

    Raises
    ------
    UsageError
        If the device is unknown or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"`device` must be auto, cpu or a CUDA device of this machine, got {name!r}. Try auto."
        ) from error
    return name


def parse_options(words: Sequence[str], *, weights: str | None = None) -> dict[str, Any]:
    """Options of a backbone from the words of a command line.

    Parameters
    ----------
    words : sequence of str
        ``key=value``; a value that is JSON is taken as JSON, any other as the text it is.
    weights : str, optional
        Taken as the option of that name.

    Raises
    ------
    UsageError
        If a word has no key or no value.

    Examples
    --------
    >>> parse_options(["widths=[24, 48]", "logits=dobble"])
    {'widths': [24, 48], 'logits': 'dobble'}
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key.isidentifier() and equals and value):
            raise UsageError(f"`option` must be KEY=VALUE, got {word!r}. For example widths=[24,48] or key=detached.")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options if weights is None else {**options, "weights": weights}


def plan(
    data: Dataset, backbone: str | None, options: Mapping[str, Any] | None = None, **changes: Any
) -> tuple[str, Recipe]:
    """The recipe for a data set, with the user's changes.

    Parameters
    ----------
    data : Dataset
    backbone : str, optional
        Default: ``pixels`` for images, ``none`` for feature rows. ``cifar_resnetN``, ``torchvision:NAME`` and
        ``timm:NAME`` stand for ``pretrained`` with that network.
    options : mapping, optional
        Options of the backbone, beside or instead of the recipe's.
    **changes
        Fields of `TrainConfig`; None leaves the recipe's value. ``closing`` (the mode) and ``reach`` are fields of
        its `ClosingConfig`.

    Returns
    -------
    name : str
    recipe : Recipe

    Raises
    ------
    UsageError
        If the backbone does not fit the kind of data.
    """
    name = backbone or ("pixels" if data.kind == "images" else "none")
    if (data.kind == "images") == (name == "none"):
        choice = "a backbone such as pixels" if name == "none" else "none"
        raise UsageError(f"`backbone` must be {choice} for {data.kind}, got {name!r}. Change --backbone.")
    chosen = dict(options or {})
    if name.startswith(("cifar_resnet", "torchvision:", "timm:")):
        name, chosen = "pretrained", {"network": name, **chosen}
    recipe = find_recipe(name, data.name)
    if name == "pretrained" and chosen.get("frozen", True) and not chosen.get("weights"):
        raise UsageError("`weights` must be given for a frozen network, got none. Pass --weights FILE or default.")
    if chosen and name == "none":
        raise UsageError(f"`option` must be left out for feature rows, got {', '.join(chosen)}. They have no backbone.")
    wanted = {name: changes.pop(name, None) for name in ("closing", "reach")}
    closing = replace(recipe.train.closing, **{name: value for name, value in wanted.items() if value is not None})
    kept = {key: value for key, value in changes.items() if value is not None}
    train = replace(recipe.train, closing=closing, **kept)
    return name, replace(recipe, backbone={**recipe.backbone, **chosen}, train=train)


def build_backbone(name: str, data: Dataset, recipe: Recipe, seed: int) -> nn.Module | None:
    """The backbone of a recipe with weights drawn from the seed; None for feature rows."""
    if name == "none":
        return None
    height, width, channels = data.shape
    torch.manual_seed(seed)
    try:
        return backbones.build(name, input_shape=(channels, height, width), **recipe.backbone)
    except ValueError as error:
        raise UsageError(str(error)) from error


def fit_and_save(
    data: Dataset,
    name: str,
    recipe: Recipe,
    *,
    out: Path,
    command: str,
    resume: bool = False,
    report: Callable[[str, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[SlotModel, FitSummary]:
    """Fit, measure, and save with a report page.

    Parameters
    ----------
    data : Dataset
        Its training part must have labels.
    name : str
        Backbone.
    recipe : Recipe
    out : Path
        Model folder; an older model there is replaced when, and only when, the new one is complete.
    command : str
        Recorded with the result.
    resume : bool
        Go on from the checkpoint beside the model folder.
    report, stop : callables, optional
        See `slots.training.fit`.

    Returns
    -------
    model : SlotModel
    summary : FitSummary
    """
    from protocols.report import write_report

    if len(data.x_train) == 0 or (data.y_train < 0).any():
        missing = "no training part" if len(data.x_train) == 0 else "training examples without a label"
        raise DataError(f"`data` must have a labelled training part to fit on, got {missing} in {data.name!r}.")
    config = recipe.train
    check_target(out)  # not after hours of training
    _refuse_learned(out)
    model, result = fit(
        data.x_train,
        data.y_train,
        backbone=build_backbone(name, data, recipe, config.seed),
        config=config,
        class_names=data.class_names,
        checkpoint=checkpoint_path(out),
        resume=resume,
        report=report,
        stop=stop,
    )
    if report:
        report("measuring", 0.0)
    labelled = data.y_test >= 0
    prediction = model.predict(data.x_test[labelled])
    on_test = evaluate(prediction, data.y_test[labelled])
    summary = _summarize(model, data, result, on_test, name=name, seed=config.seed, out=out, command=command)
    model.history.append(Generation(0, "fit", model.head.n_slots, summary.as_json()))
    model.save(out)
    write_report(model, data, prediction, summary, out / "report.html")
    return model, summary


def _refuse_learned(out: Path) -> None:
    """A fit replaces a fit, but not what was learned since."""
    later = [header for header in read_headers(out) if generation_of(header)] if (out / "slots.json").exists() else []
    if later:
        raise StorageError(
            f"`{out}` must not hold later generations than a fit, got {len(later)} of them: a fit would lose what was "
            "learned. Choose another --out, or remove the folder yourself."
        )


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of a fit into ``out`` lies: beside the folder, which stays as it is until the end."""
    return out.parent / f".{out.name}.{CHECKPOINT}"


def _summarize(
    model: SlotModel,
    data: Dataset,
    result: FitResult,
    on_test: Evaluation,
    *,
    name: str,
    seed: int,
    out: Path,
    command: str,
) -> FitSummary:
    right, matched = result.closing.labels == data.y_train, result.closing.matched
    counts = np.bincount(model.head.labels.cpu().numpy(), minlength=len(data.class_names))
    device = str(model.device)
    if device.startswith("cuda"):
        device += f" ({torch.cuda.get_device_name(model.device)})"
    return FitSummary(
        schema=SCHEMA,
        command=command,
        data=data.name,
        data_digest=data.digest,
        backbone=name,
        n_slots=model.head.n_slots,
        slots_per_class={model.class_name(label): int(count) for label, count in enumerate(counts)},
        train_accuracy=float(right.mean()),
        train_matched=float(matched.mean()),
        train_precision=float(right[matched].mean()) if matched.any() else None,
        test_accuracy=on_test.accuracy,
        test_matched=on_test.matched,
        test_ambiguous=on_test.ambiguous,
        test_accuracy_matched=on_test.accuracy_matched,
        contradictions=result.closing.contradictions.tolist(),
        interrupted=result.interrupted,
        elapsed_s=round(result.elapsed_s, 2),
        epochs=result.epochs,
        seed=seed,
        device=device,
        model=str(out),
        report=str(out / "report.html"),
        versions=versions(),
    )


def load_model(folder: str | Path, *, device: str = "auto") -> SlotModel:
    """Load a model folder with its backbone.

    Parameters
    ----------
    folder : path
    device : str, default "auto"

    Returns
    -------
    SlotModel

    Raises
    ------
    ModelError
        If the folder is no readable model.
    """
    return SlotModel.load(folder, build=backbones.build, device=pick_device(device))


def command_line() -> str:
    """The command as it was typed, for the record."""
    import shlex

    return shlex.join(["slots", *sys.argv[1:]])
