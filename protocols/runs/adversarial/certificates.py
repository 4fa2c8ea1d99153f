"""How far an input may be moved before a decision on pixels can change: lower bounds that hold for every attack."""

from __future__ import annotations

import torch
from torch import Tensor

from slots.head.caps import SlotCaps, margins
from slots.head.similarities import normalize
from slots.robust.matched_slots import matched_radii

_OWN = 50  # nearest prototypes of the own class that are tried as witnesses


def matched_radius(rows: Tensor, labels: Tensor, caps: SlotCaps) -> Tensor:
    """L2 radius inside which the input stays matched, with its right label.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        Inputs that are their own features, not normalised.
    labels : int64 tensor of shape (example,)
        Right labels.
    caps : SlotCaps
        All slots of one generation.

    Returns
    -------
    float64 tensor of shape (example,)
        Zero where the answer is not matched, or wrong.

    Raises
    ------
    ValueError
        If the slots come from several generations.

    Notes
    -----
    The bound of `slots.robust.matched_slots.matched_radii`, which of one generation is ``|x| sin(min(m, (m - n) / 2))``
    with ``m`` the largest margin of a slot of the right label and ``n`` of any other.
    """
    if bool((caps.generations != caps.generations[0]).any()):
        raise ValueError(
            f"`caps` must be of one generation, got {len(caps.generations.unique())}. Certify a model as it was fitted."
        )
    return matched_radii(rows, labels, caps).stays


def nearest_prototype_radius(rows: Tensor, labels: Tensor, prototypes: Tensor, prototype_labels: Tensor) -> Tensor:
    """L2 radius inside which the nearest prototype keeps the right label.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        What is answered, in the space where the radius is measured.
    labels : int64 tensor of shape (example,)
        True labels.
    prototypes : float tensor of shape (prototype, feature)
        Points of the same space.
    prototype_labels : int64 tensor of shape (prototype,)
        What each prototype answers.

    Returns
    -------
    float64 tensor of shape (example,)
        Zero where the answer is wrong.

    Notes
    -----
    While ``x`` stays nearer to one prototype ``p`` of its label than to every ``q`` of another, the answer is right.
    The distance of ``x`` from the plane between the two is ``(|x - q|^2 - |x - p|^2) / (2 |p - q|)``; the smallest over
    ``q`` is a bound for each ``p``, and the largest of these over the 50 nearest ``p`` is taken (Wang et al. 2019,
    "Evaluating the robustness of nearest neighbor classifiers: a primal-dual perspective"). Among unit prototypes the
    nearest is the one of smallest angle, also where ``x`` is not of unit length.
    """
    squared = torch.cdist(rows.double(), prototypes.double()).square()
    found = torch.zeros(len(rows), dtype=torch.float64)
    for label in labels.unique().tolist():
        here = (labels == label).nonzero()[:, 0]
        own, other = (prototype_labels == label).nonzero()[:, 0], (prototype_labels != label).nonzero()[:, 0]
        if len(own) == 0 or len(other) == 0:
            continue
        gap = torch.cdist(prototypes[own].double(), prototypes[other].double()).clamp_min(1e-12)
        for i in here.tolist():
            near = squared[i, own].topk(min(_OWN, len(own)), largest=False).indices
            bound = (squared[i, other] - squared[i, own[near]][:, None]) / (2 * gap[near])
            found[i] = bound.amin(1).max().clamp_min(0)
    return found


def linear_radius(rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """L2 distance from the nearest plane between the right class and another, exact; zero where the answer is wrong.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        What is answered, in the space where the distance is measured.
    labels : int64 tensor of shape (example,)
        True labels, positions of the classes.
    weight, bias : float tensors of shape (class, feature) and (class,)
        Of the linear classifier: scores are ``rows @ weight.T + bias``.
    """
    wide = weight.double()
    scores = rows.double() @ wide.T + bias.double()
    lead = scores.gather(1, labels[:, None]) - scores
    apart = (wide[labels][:, None] - wide[None]).norm(dim=2)
    radius = torch.where(apart > 0, lead / apart.clamp_min(1e-12), torch.inf)
    return radius.amin(1).clamp_min(0)


def slot_margins(rows: Tensor, caps: SlotCaps) -> Tensor:
    """Margin of every slot in radians, float64 of shape (example, slot)."""
    unit = normalize(rows.double())
    weight_scores = unit @ normalize(caps.weights.double()).T
    centre_scores = unit @ normalize(caps.centres.double()).T
    return margins(weight_scores, centre_scores, caps.precision.double(), caps.support.double())
