"""Suspicious labels of a data set, with what speaks against each: by a model, or by a network trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import backbones
from protocols.data import Dataset
from slots.errors import DataError, UsageError
from slots.hashing import IncrementalNeuralHashing
from slots.label_errors import LabelErrors, WatchConfig, find_label_errors, small_network
from slots.label_errors_evidence import Evidence, gather_evidence
from slots.model import SlotModel
from slots.preprocessing import Preprocessing, RawInputs
from slots.progress import Progress, part
from slots.train_config import TrainConfig
from slots.training import fit

Ids = npt.NDArray[np.int64]

_BLOCK = 128


@dataclass(frozen=True)
class CleaningPlan:
    """What the user asked for.

    Parameters
    ----------
    part : {"train", "test"}
        Part of the data to examine.
    limit : int, optional
        Most examples to list, at most half of all. Default: as many as labels are wrong by the estimate.
    backbone : str, optional
        Without a model: the network to train. Default: ``cnn`` for images; feature rows have none.
    seed : int
    device : str
    """

    part: Literal["train", "test"] = "train"
    limit: int | None = None
    backbone: str | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"`limit` must be >= 1, got {self.limit}. Leave it out to list by the estimate.")


@dataclass(frozen=True)
class Found:
    """Everything that the list and the page are made of.

    Parameters
    ----------
    x : array of shape (example, ...)
        All examples of the part, labelled or not.
    rows : int64 array of shape (labelled,)
        The labelled ones; evidence and errors count in these.
    y : int64 array of shape (labelled,)
        Given labels, positions in ``names``.
    names : tuple of str
    errors : LabelErrors
    evidence : list of Evidence
        Of the listed examples, the most suspicious first.
    slot_labels : tuple of str
        Name of each slot's label.
    exemplars : int64 array of shape (slot,)
        The trusted labelled example (a place in ``rows``) that is nearest to each slot; -1 for none.
    """

    x: RawInputs
    rows: Ids
    y: Ids
    names: tuple[str, ...]
    errors: LabelErrors
    evidence: list[Evidence]
    slot_labels: tuple[str, ...]
    exemplars: Ids


def find(data: Dataset, plan: CleaningPlan, *, model: SlotModel | None, report: Progress) -> Found:
    """The suspicious labels and their evidence; see `protocols.cleaning.clean_and_write`."""
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
    features, errors = _judge(data, plan, inputs, y, model=model, report=report)
    count = errors.n_errors if plan.limit is None else plan.limit
    listed = errors.ranked()[: min(count, len(y) // 2)]  # the rest is what the listed are held against
    trusted = np.setdiff1d(np.arange(len(y)), listed)
    if model is not None:
        head, of_head = model.head, _labels_of_model(model, data, y)
        names = tuple(model.class_name(int(label)) for label in head.labels)
    else:
        report("fitting slots to the rest", 0.8)
        config = _slots_config(len(trusted), len(np.unique(y[trusted])), plan)
        head, of_head = fit(features[trusted], y[trusted], config=config)[0].head, y
        names = tuple(data.class_names[int(label)] for label in head.labels)
    report("evidence", 0.9)
    rows_of_head = torch.from_numpy(features).to(head.weights.device)
    evidence = gather_evidence(rows_of_head, of_head, head, listed)
    exemplars = _exemplars(rows_of_head, of_head, head, trusted)
    return Found(x, rows, y, data.class_names, errors, evidence, names, exemplars)


def _judge(
    data: Dataset, plan: CleaningPlan, inputs: RawInputs, y: Ids, *, model: SlotModel | None, report: Progress
) -> tuple[npt.NDArray[np.float32], LabelErrors]:
    """Features of the inputs, and what a watched training says about their labels."""
    config = WatchConfig(seed=plan.seed, device=plan.device)

    def watch(network: nn.Module, seen: RawInputs) -> LabelErrors:
        return find_label_errors(network, seen, y, config=config, report=part(report, 0.0, 0.8))

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
    return features, watch(small_network(features.shape[1]), features)


def backbone_name(data: Dataset, plan: CleaningPlan) -> str:
    """The backbone of a plan, or the default of the kind of data."""
    return plan.backbone or ("cnn" if data.kind == "images" else "none")


def _network(data: Dataset, plan: CleaningPlan) -> nn.Module | None:
    """A fresh network for images; None where the pixels or rows are the features."""
    name = backbone_name(data, plan)
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


def _slots_config(n: int, n_classes: int, plan: CleaningPlan) -> TrainConfig:
    """A short training of about one slot for 100 examples, 2 to 20 a class."""
    of_class = min(20, max(2, n // (100 * n_classes)))
    return TrainConfig(epochs=6, slots_per_class=of_class, seed=plan.seed, device=plan.device)


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
    blocks = [model.backbone(model.preprocessing(x[rows], model.device)) for rows in model.blocks(len(x))]
    found: npt.NDArray[np.float32] = torch.cat(blocks).float().cpu().numpy()
    return found


def _labels_of_model(model: SlotModel, data: Dataset, y: Ids) -> Ids:
    """The given labels as label ids of the model, by name; names that it lacks get ids that no slot has."""
    labels = model.labels
    ids = labels.ids(data.class_names)
    found: Ids = np.where(ids >= 0, ids, labels.n_labels + np.arange(len(ids)))[y]
    return found


@torch.no_grad()
def _exemplars(unit: torch.Tensor, y: Ids, head: IncrementalNeuralHashing, trusted: Ids) -> Ids:
    """The trusted example of its own label that is nearest to each slot's centre; -1 for none."""
    kept = torch.nn.functional.normalize(unit[torch.from_numpy(trusted).to(unit.device)], dim=1)
    labels = torch.from_numpy(y[trusted]).to(unit.device)
    best = torch.full((head.n_slots,), -2.0, device=unit.device)
    place = torch.full((head.n_slots,), -1, dtype=torch.long, device=unit.device)
    for start in range(0, len(kept), 8192):
        scores = kept[start : start + 8192] @ head.centres.T
        foreign = labels[start : start + 8192, None] != head.labels
        top, at = scores.masked_fill(foreign, -2.0).max(0)
        place = torch.where(top > best, at + start, place)
        best = torch.maximum(best, top)
    found: Ids = np.where(place.cpu().numpy() >= 0, trusted[place.cpu().numpy()], -1)
    return found
