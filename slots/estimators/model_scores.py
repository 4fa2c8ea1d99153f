"""What the estimators ask of a model: a fit on feature rows, and scores and angles that a user can rank, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from slots.head.pooling import class_groups, max_pool, softmax_pool
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.training.config import TrainConfig
from slots.training.defaults import Look
from slots.training.fitting import fit
from slots.update.queries import median_radius

Rows = npt.NDArray[np.float32]
_POINT = 1e-2  # radians; the cap of a slot that owns one example is rounding, 2e-3
_SMALL = 0.1  # radians, where no slot owns two examples yet
_LEAD = 1e-6  # what puts the answer's class first among equals, and survives a softmax


def fit_without_side_effects(
    rows: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], config: TrainConfig | Look
) -> SlotModel:
    """`slots.training.fit` that leaves torch's own random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        return fit(rows, ids, config=config)[0]


@torch.no_grad()
def class_scores(
    model: SlotModel, rows: Rows, answers: npt.NDArray[np.int64], *, n_labels: int
) -> npt.NDArray[np.float64]:
    """Pooled score of each label, with the model's own answer on top.

    Parameters
    ----------
    model : SlotModel
        Without a backbone.
    rows : float32 array of shape (example, feature)
        As the model sees them: projected.
    answers : int64 array of shape (example,)
        What `SlotModel.predict` answers to them.
    n_labels : int
        Number of columns, at least the model's.

    Returns
    -------
    float64 array of shape (example, label)
        ``scale * SoftMaxPool``, in [-scale, scale]. Where a slot answers against the pooled score, the two labels
        change places; a label without slots has ``-2 * scale``.

    Notes
    -----
    In float64, so that a row has the same scores alone and in a batch but for the last bits.
    """
    head = model.head
    pooled = head.pooled.clone()
    for label in head.labels.unique():  # a label that training never saw is represented by what slots it has
        mine = head.labels == label
        pooled |= mine & ~(mine & head.pooled).any()
    labels = torch.where(pooled, head.labels, torch.full_like(head.labels, -1))
    groups = class_groups(labels, torch.arange(n_labels, device=labels.device))
    weights = normalize(head.weights.double())
    scores = np.empty((len(rows), n_labels))
    for part in model.blocks(len(rows), columns=n_labels * groups.shape[1]):
        unit = normalize(model.features(rows[part])[:, 0].double())
        scores[part] = (head.scale * softmax_pool(unit @ weights.T, groups, beta=head.beta)).cpu().numpy()
    scores[np.isneginf(scores)] = -2 * head.scale
    here = np.arange(len(rows))
    best = scores.argmax(1)
    scores[here, best], scores[here, answers] = scores[here, answers], scores[here, best]
    rivals = scores.copy()
    rivals[here, answers] = -np.inf
    scores[here, answers] = np.maximum(scores[here, answers], rivals.max(1) + _LEAD)
    return scores


@torch.no_grad()
def nearest_angles(model: SlotModel, rows: Rows) -> npt.NDArray[np.float64]:
    """Angle to the nearest slot's centre, radians in [0, pi].

    Parameters
    ----------
    model : SlotModel
        Without a backbone.
    rows : float32 array of shape (example, feature)
        As the model sees them: projected.

    Returns
    -------
    float64 array of shape (example,)
    """
    centres = normalize(model.head.centres.double())
    angles = np.empty(len(rows))
    for part in model.blocks(len(rows)):
        unit = normalize(model.features(rows[part])[:, 0].double())
        angles[part] = (unit @ centres.T).amax(1).clamp(-1, 1).arccos().cpu().numpy()
    return angles


def new_slot_radius(model: SlotModel) -> float:
    """Angular radius that new slots may have: `median_radius` of the caps that hold more than a point, radians."""
    return median_radius(model.head, fallback=_SMALL, smallest=_POINT)


def label_centroids(model: SlotModel) -> npt.NDArray[np.float64]:
    """Centroid of each label: unit mean of its slot centres, weighted by its hits, shape (label, feature)."""
    head = model.head
    sums = torch.zeros(model.n_labels, head.feature_dim, dtype=torch.float64)
    sums.index_add_(0, head.labels.cpu(), (head.centres.double() * head.hits.clamp_min(1)[:, None]).cpu())
    return np.asarray(normalize(sums))


@torch.no_grad()
def label_angles(model: SlotModel, rows: Rows) -> npt.NDArray[np.float64]:
    """Angle to the nearest slot centre of each label, radians; pi where a label has no slot.

    Parameters
    ----------
    model : SlotModel
        Without a backbone.
    rows : float32 array of shape (example, feature)
        As the model sees them: projected.

    Returns
    -------
    float64 array of shape (example, label)
    """
    head = model.head
    centres = normalize(head.centres.double())
    groups = class_groups(head.labels, torch.arange(model.n_labels, device=head.labels.device))
    angles = np.empty((len(rows), model.n_labels))
    for part in model.blocks(len(rows)):
        unit = normalize(model.features(rows[part])[:, 0].double())
        angles[part] = max_pool(unit @ centres.T, groups).clamp(-1, 1).arccos().cpu().numpy()
    return angles
