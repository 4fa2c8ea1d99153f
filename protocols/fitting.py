"""From a data set and a backbone's name to a model on disk, measured: what ``slots fit`` does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import backbones
from backbones.reconstruction import reconstruct
from protocols.data import Dataset
from protocols.evaluation import Evaluation, evaluate
from protocols.planning import build_backbone, pick_device
from protocols.provenance import versions
from protocols.recipes import Recipe
from slots.errors import DataError, StorageError
from slots.generations import Generation, generation_of
from slots.model import SlotModel
from slots.store import check_target, read_headers
from slots.training import FitResult, Regularizer, fit

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
    """Fit, measure, and save with a report page and figures.

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
    from protocols.gradients import write_figures
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
        regularizer=_regularizer(recipe),
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
    write_figures(model, data, out / "figures")
    return model, summary


def _regularizer(recipe: Recipe) -> Regularizer | None:
    """The reconstruction regulariser of a recipe that asks for it."""
    if not recipe.reconstruction:
        return None

    def regularize(backbone: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = reconstruct(backbone, inputs, balanced=True, detach=recipe.detach)
        return found.features, recipe.reconstruction * found.loss

    return regularize


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
