"""From a data set and a backbone's name to a model on disk, measured: what ``slots fit`` does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.explanations.reconstruction import reconstruct
from backbones.explanations.stabilization import stabilize
from protocols.data.dataset import Dataset
from protocols.pages.fit_report import write_report
from protocols.pages.saliency import write_figures
from protocols.provenance import versions
from protocols.recipes.building import build_backbone
from protocols.recipes.recipes import Recipe
from protocols.summaries.evaluation import Evaluation, evaluate
from protocols.summaries.fit import SCHEMA, FitSummary, Looked, Vouched
from protocols.summaries.reliability import measure_reliability
from slots.closing.vouching import Vouching
from slots.distributed import ALONE, Ranks
from slots.errors import DataError, StorageError
from slots.model.slot_model import SlotModel
from slots.parts.fitting import fit_parts
from slots.progress import Progress
from slots.storage.generations import Generation, generation_of
from slots.storage.store import check_target, read_headers
from slots.training.checkpoint import remove_checkpoint
from slots.training.fitting import FitResult, fit
from slots.training.loop import Regularizer

CHECKPOINT = "checkpoint.safetensors"


def fit_and_save(
    data: Dataset,
    name: str,
    recipe: Recipe,
    *,
    out: Path,
    command: str,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[SlotModel, FitSummary | None]:
    """Fit, measure, and save with a report page and figures.

    Parameters
    ----------
    data : Dataset
        Its training part must have labels.
    name : str
        Backbone.
    recipe : Recipe
        Options of the backbone and of the training.
    out : Path
        Model folder; an older model there is replaced when, and only when, the new one is complete.
    command : str
        Recorded with the result.
    resume : bool
        Go on from the checkpoint beside the model folder.
    progress, stop : callables, optional
        See `slots.training.fit`.
    ranks : Ranks, default ALONE
        Processes that all do this; the first alone writes and measures.

    Returns
    -------
    model : SlotModel
    summary : FitSummary or None
        None in all processes but the first.
    """
    if len(data.x_train) == 0 or (data.y_train < 0).any():
        missing = "no training part" if len(data.x_train) == 0 else "training examples without a label"
        raise DataError(
            f"`data` must have a labelled training part to fit on, got {missing} in {data.name!r}. "
            "Labels are `y` in an archive, a column `label` in a table, folders of images a class, or NAME_labels.npy "
            "beside NAME.npy."
        )
    config = recipe.train
    check_target(out)  # not after hours of training
    _refuse_learned(out)
    model, result = _fit(
        data,
        build_backbone(name, data, recipe, config.seed),
        recipe,
        checkpoint=checkpoint_path(out),
        resume=resume,
        keep_checkpoint=True,
        progress=progress,
        stop=stop,
        ranks=ranks,
    )
    ranks.leave()
    if not ranks.is_first:
        return model, None
    if progress:
        progress("measuring", 0.0)
    labelled = data.y_test >= 0
    prediction = model.predict(data.x_test[labelled])
    on_test = evaluate(prediction, data.y_test[labelled])
    summary = _summarize(model, data, result, on_test, name=name, seed=config.seed, out=out, command=command)
    model.history.append(Generation(0, "fit", model.head.n_slots, asdict(summary)))
    model.save(out)
    reliability = measure_reliability(
        model, data.x_test[labelled], data.y_test[labelled], prediction, vouched=summary.vouching
    )
    write_report(model, data, prediction, summary, out / "report.html", reliability=reliability)
    write_figures(model, data, out / "figures")
    remove_checkpoint(checkpoint_path(out), saved=out)
    return model, summary


def _fit(data: Dataset, backbone: nn.Module | None, recipe: Recipe, **how: Any) -> tuple[SlotModel, FitResult]:
    """Fit as the recipe says; with parts their training counts too."""
    x, y, names = data.x_train, data.y_train, data.class_names
    if recipe.parts is None or backbone is None:
        regularizer = _regularizer(recipe)
        return fit(x, y, backbone=backbone, config=recipe.config, class_names=names, regularizer=regularizer, **how)
    model, found = fit_parts(x, y, backbone=backbone, config=recipe.train, parts=recipe.parts, class_names=names, **how)
    losses = found.losses + found.fit.losses
    return model, replace(
        found.fit,
        epochs=len(losses),
        losses=losses,
        elapsed_s=found.elapsed_s,
        interrupted=found.interrupted or found.fit.interrupted,
    )


def _regularizer(recipe: Recipe) -> Regularizer | None:
    """The regulariser that a recipe asks for."""

    def draw(backbone: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = reconstruct(backbone, inputs, balanced=True, detach=recipe.detach)
        return found.features, recipe.reconstruction * found.loss

    def steady(backbone: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = stabilize(backbone, inputs)
        return found.features, recipe.stabilize * found.loss

    return draw if recipe.reconstruction else steady if recipe.stabilize else None


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
        source_digest=data.source_digest,
        vouching=_vouched(result.closing.vouching),
        look=_looked(result),
    )


def _vouched(vouching: Vouching | None) -> Vouched | None:
    if vouching is None:
        return None
    found = vouching.n_checked, vouching.n_matched, vouching.n_right
    return Vouched(
        vouching.level,
        *found,
        shown=vouching.shown,
        smaller_by=_degrees(vouching.angle),
        open_share=vouching.open_share,
        left_open=vouching.left_open,
        course=tuple((math.degrees(it.angle), it.n_matched, it.n_right) for it in vouching.course),
        asked=tuple((it.level, _degrees(it.angle), it.shown) for it in vouching.asked),
    )


def _degrees(angle: float) -> float | None:
    """An angle in degrees; None for an infinite one, which JSON has not."""
    return math.degrees(angle) if math.isfinite(angle) else None


def _looked(result: FitResult) -> Looked | None:
    if result.look is None:
        return None
    names = "whitening", "whitening_by", "lift", "slots_per_class", "scale", "epochs", "batch_size"
    used = {name: getattr(result.config, name) for name in names}
    return Looked(result.look.n_checked, result.look.chosen, result.look.tries, used)
