"""What a fitted model says of feature rows in numbers a user can rank: class scores and angles, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from slots.matching import class_groups, normalize, softmax_pool
from slots.model import SlotModel

Rows = npt.NDArray[np.float32]

_LEAD = 1e-6  # what puts the answer's class first among equals, and survives a softmax


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
    voters = head.trained.clone()
    for label in head.labels.unique():  # a label that training never saw is represented by what slots it has
        mine = head.labels == label
        voters |= mine & ~(mine & head.trained).any()
    labels = torch.where(voters, head.labels, torch.full_like(head.labels, -1))
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
