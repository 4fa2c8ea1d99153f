"""Suspicious labels of a data set, with what speaks against each: by a model, or by a network trained for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import backbones
from protocols.data.dataset import Dataset
from protocols.recipes.building import read_encoder
from protocols.recipes.planning import check_text_backbone
from protocols.summaries.cleaning import CleaningPlan, SuspectLabels
from slots.errors import DataError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.label_errors.detection import LabelErrors, find_label_errors
from slots.label_errors.explanations import explain_label_errors
from slots.label_errors.training_dynamics import TrainingDynamicsConfig
from slots.model.slot_model import SlotModel
from slots.progress import Progress, part
from slots.shapes import Ids, RawInputs

_BLOCK = 128


def find_suspects(data: Dataset, plan: CleaningPlan, *, model: SlotModel | None, progress: Progress) -> SuspectLabels:
    """The suspicious labels and their evidence; see `protocols.app.clean.clean_and_write`."""
    x, labels = (data.x_train, data.y_train) if plan.part == "train" else (data.x_test, data.y_test)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) < 20:
        raise DataError(
            f"`data` must have at least 20 labelled examples in its {plan.part} part, got {len(rows)}. "
            "Try the other --part."
        )
    if model is not None and plan.backbone is not None:
        raise UsageError("`backbone` must be left out with a model, got both. The model has its own.")
    inputs, y = x[rows], labels[rows]
    features, errors = _features_and_errors(data, plan, inputs, y, model=model, progress=progress)
    explained = explain_label_errors(
        features,
        y if model is None else _labels_of_model(model, data, y),
        errors,
        head=None if model is None else model.head,
        limit=plan.limit,
        seed=plan.seed,
        device=plan.device,
        progress=part(progress, 0.8, 1.0),
    )
    name_of = data.class_names.__getitem__ if model is None else model.class_name
    names = tuple(name_of(int(label)) for label in explained.slot_labels)
    return SuspectLabels(x, rows, y, data.class_names, errors, explained.evidence, names, explained.exemplars)


def _features_and_errors(
    data: Dataset, plan: CleaningPlan, inputs: RawInputs, y: Ids, *, model: SlotModel | None, progress: Progress
) -> tuple[npt.NDArray[np.float32], LabelErrors]:
    """Features of the inputs, and what a watched training says about their labels."""
    config = TrainingDynamicsConfig(seed=plan.seed, device=plan.device)

    def watch(network: nn.Module | None, seen: RawInputs) -> LabelErrors:
        return find_label_errors(network, seen, y, config=config, progress=part(progress, 0.0, 0.8))

    if model is None and data.kind == "text":
        encoder = read_encoder(check_text_backbone(data, plan.backbone)).to(plan.device)
        features = encoder(inputs).cpu().numpy()
        return features, watch(None, features)
    torch.manual_seed(plan.seed)
    network = _network(data, plan) if model is None else None
    if network is not None:
        errors = watch(network, inputs)
        return _outputs(network, inputs, plan.device), errors
    if model is not None:
        model.preprocessing.check(inputs)
        features = _of_model(model, inputs)
    else:
        features = np.asarray(inputs, np.float32).reshape(len(inputs), -1)
    return features, watch(None, features)


def backbone_name(data: Dataset, plan: CleaningPlan) -> str:
    """The backbone of a plan, or the default of the kind of data."""
    return plan.backbone or ("cnn" if data.kind == "images" else "none")


def _network(data: Dataset, plan: CleaningPlan) -> nn.Module | None:
    """A fresh network for images; None where the pixels or rows are the features."""
    name = backbone_name(data, plan)
    if backbones.is_text_name(name):
        check_text_backbone(data, name)
    if (data.kind == "images") == (name == "none"):
        choice = "a network such as cnn" if name == "none" else "none"
        raise UsageError(f"`backbone` must be {choice} for {data.kind}, got {name!r}. Change --backbone.")
    if name in {"none", "pixels"}:
        return None
    height, width, channels = data.shape
    try:
        return backbones.build(name, input_shape=(channels, height, width))
    except ValueError as error:
        raise UsageError(str(error)) from error


@torch.no_grad()
def _outputs(network: nn.Module, x: RawInputs, device: str) -> npt.NDArray[np.float32]:
    preprocessing = Preprocessing.of(x)
    parts = [network(preprocessing(x[i : i + _BLOCK], device)).float().cpu() for i in range(0, len(x), _BLOCK)]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found


@torch.no_grad()
def _of_model(model: SlotModel, x: RawInputs) -> npt.NDArray[np.float32]:
    """Features of the inputs themselves, without further views."""
    model.eval()
    if model.preprocessing.kind == "text":
        blocks = [model.features(x[rows])[:, 0] for rows in model.blocks(len(x))]
    else:
        blocks = [model.backbone(model.preprocessing(x[rows], model.device)) for rows in model.blocks(len(x))]
    found: npt.NDArray[np.float32] = torch.cat(blocks).float().cpu().numpy()
    return found


def _labels_of_model(model: SlotModel, data: Dataset, y: Ids) -> Ids:
    """The given labels as label ids of the model, by name; names that it lacks get ids that no slot has."""
    labels = model.labels
    ids = labels.ids(data.class_names)
    found: Ids = np.where(ids >= 0, ids, labels.n_labels + np.arange(len(ids)))[y]
    return found
