"""Suspicious labels with what speaks against each: the slots they hold back, and their nearest trusted neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from slots.deprecation import renamed
from slots.head.hashing import IncrementalNeuralHashing
from slots.label_errors.detection import LabelErrors
from slots.label_errors.evidence import Evidence, gather_evidence
from slots.progress import Progress, silent
from slots.shapes import Features, Ids
from slots.training.config import TrainConfig
from slots.training.fitting import fit

Labels = npt.NDArray[np.int64]
_BLOCK = 8192


@dataclass(frozen=True)
class ExplainedErrors:
    """The listed examples and what their labels are held against.

    Parameters
    ----------
    evidence : list of Evidence
        Of each listed example, the most suspicious first.
    slot_labels : int64 array of shape (slot,)
        Labels of the slots that the evidence names.
    exemplars : int64 array of shape (slot,)
        The trusted example of its label that is nearest to each slot; -1 for none.
    """

    evidence: list[Evidence]
    slot_labels: Labels
    exemplars: Ids


@renamed(report="progress")
def explain_label_errors(
    features: npt.NDArray[np.float32],
    y: Labels,
    errors: LabelErrors,
    *,
    head: IncrementalNeuralHashing | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ExplainedErrors:
    """Say what speaks against the most suspicious labels; the examples that are not listed are trusted.

    Parameters
    ----------
    features : float32 array of shape (example, feature)
        As the head takes them; any scale.
    y : int64 array of shape (example,)
        Given labels; with a head, its labels. A label that no slot has is allowed.
    errors : LabelErrors
        Of these examples.
    head : IncrementalNeuralHashing, optional
        Its slots are the ones that may be held back. Default: slots are fitted to the trusted examples, about one for
        100 of them, 2 to 20 a class.
    limit : int, optional
        Most examples to list (count, >= 1); never more than half of all. Default: ``errors.n_errors``.
    seed : int, default 0
        Of the fit of slots, where there is no head.
    device : str, default "cpu"
        Both for the fit.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Returns
    -------
    ExplainedErrors

    Raises
    ------
    ValueError
        If the features do not suit the head.
    """
    progress = progress or silent
    count = errors.n_errors if limit is None else limit
    listed = errors.ranked()[: min(count, len(y) // 2)]  # the rest is what the listed are held against
    trusted = np.setdiff1d(np.arange(len(y)), listed)
    if head is None:
        progress("fitting slots to the rest", 0.0)
        config = _slots_config(y[trusted], seed, device)
        head = fit(features[trusted], y[trusted], config=config)[0].head
    progress("evidence", 0.5)
    rows = torch.from_numpy(features).to(head.weights.device)
    evidence = gather_evidence(rows, y, head, listed)
    return ExplainedErrors(evidence, head.labels.cpu().numpy(), _exemplars(rows, y, head, trusted))


def _slots_config(y: Labels, seed: int, device: str) -> TrainConfig:
    """A short training of about one slot for 100 examples, 2 to 20 a class."""
    of_class = min(20, max(2, len(y) // (100 * len(np.unique(y)))))
    return TrainConfig(epochs=6, slots_per_class=of_class, seed=seed, device=device)


@torch.no_grad()
def _exemplars(features: Features, y: Labels, head: IncrementalNeuralHashing, trusted: Ids) -> Ids:
    """The trusted example of its own label that is nearest to each slot's centre; -1 for none."""
    kept = torch.nn.functional.normalize(features[torch.from_numpy(trusted).to(features.device)], dim=1)
    labels = torch.from_numpy(y[trusted]).to(features.device)
    best = torch.full((head.n_slots,), -2.0, device=features.device)
    place = torch.full((head.n_slots,), -1, dtype=torch.long, device=features.device)
    for start in range(0, len(kept), _BLOCK):
        scores = kept[start : start + _BLOCK] @ head.centres.T
        foreign = labels[start : start + _BLOCK, None] != head.labels
        top, at = scores.masked_fill(foreign, -2.0).max(0)
        place = torch.where(top > best, at + start, place)
        best = torch.maximum(best, top)
    found: Ids = np.where(place.cpu().numpy() >= 0, trusted[place.cpu().numpy()], -1)
    return found
