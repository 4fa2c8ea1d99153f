"""`Recall`: what an input that no slot matches most likely is, by all that is remembered with labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slots.head.similarities import normalize
from slots.shapes import SlotLabels, ViewFeatures

NEAR = 1e-9
"""Scores that lie closer than this count as equal, so that the last bits of a product decide nothing."""

_HELD = 1 << 22  # float64 similarities held at once: 32 MB


@dataclass(frozen=True, eq=False)
class Recall:
    """A guess by kernel ridge regression on remembered examples; `slots.rehearsal.learn_recall` fits it.

    Parameters
    ----------
    examples : float64 tensor of shape (example, raw feature)
        Unit vectors of the remembered, before any whitening.
    coefficients : float32 tensor of shape (example, label)
        What each says for each label.
    labels : int64 tensor of shape (label,)
        Label ids, ascending.
    gamma : float
        Sharpness of the kernel ``exp(-gamma |a - b|^2)``.
    trust : float
        What the pooled score's own answer adds to the score of its label (>= 0).
    back : pair of float64 tensors of shapes (feature, raw feature) and (raw feature,), optional
        ``features @ back[0] + back[1]`` is what they were before the whitening. Default: there is none.

    Notes
    -----
    A whitening makes small what does not tell the classes of the fit apart; classes and domains that come later may
    differ in just that, so memories are compared before it.
    """

    examples: Float[Tensor, "example raw"]
    coefficients: Float[Tensor, "example label"]
    labels: Int[Tensor, " label"]
    gamma: float
    trust: float
    back: tuple[Tensor, Tensor] | None = None

    def scores(self, features: ViewFeatures, pooled: npt.NDArray[np.int64] | None = None) -> Float[Tensor, "input l"]:
        """Score of each label, near 1 for what is surely of it and near 0 for what is not.

        Parameters
        ----------
        features : float tensor of shape (input, view, feature)
            As the head gets them; any scale. The best view counts for each remembered example.
        pooled : int64 array of shape (input,), optional
            Labels that the pooled score gives. Default: it is not asked.

        Returns
        -------
        float64 tensor of shape (input, label)
        """
        known, weights = self.examples, self.coefficients.double()
        found = [weights.new_zeros(0, len(self.labels))]
        step = max(1, _HELD // max(1, features.shape[1] * len(known)))
        for block in features.split(step):
            unit = raw_units(block, self.back)
            near = (unit @ known.T).amax(1)
            found.append((2 * self.gamma * (near - 1)).exp() @ weights)
        scores = torch.cat(found)
        if pooled is not None and self.trust > 0:
            said = torch.from_numpy(pooled).to(self.labels.device)
            scores = scores + self.trust * (said[:, None] == self.labels[None])
        return scores

    def ranked(
        self, features: ViewFeatures, pooled: npt.NDArray[np.int64], among: SlotLabels
    ) -> tuple[Int[Tensor, "input place"], Float[Tensor, " input"]]:
        """The best two labels of each input among those given, and the lead of the first, cut to [0, 1].

        Parameters
        ----------
        features : float tensor of shape (input, view, feature)
            As the head gets them.
        pooled : int64 array of shape (input,)
            Labels that the pooled score gives.
        among : int64 tensor
            Labels that may be answered.

        Returns
        -------
        labels : int64 tensor of shape (input, 2), or (input, 1) where only one may be answered
        lead : float64 tensor of shape (input,)
            1 where only one may be answered.
        """
        scores = self.scores(features, pooled)
        scores = (scores[:, torch.isin(self.labels, among)] / NEAR).round() * NEAR
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :2]
        best = scores.gather(1, order)
        lead = best[:, 0] - best[:, -1] if best.shape[1] > 1 else torch.ones_like(best[:, 0])
        return self.labels[torch.isin(self.labels, among)][order], lead.clamp(0, 1)

    def relabelled(self, gone: int, label: int) -> Recall:
        """The same after all slots of one label got another: what was said for the first is said for the other."""
        mine = self.labels == gone
        if not bool(mine.any()):
            return self
        names = torch.where(mine, torch.full_like(self.labels, label), self.labels)
        labels, place = names.unique(return_inverse=True)
        summed = self.coefficients.new_zeros(len(self.coefficients), len(labels)).index_add_(
            1, place, self.coefficients
        )
        return replace(self, coefficients=summed, labels=labels)

    def state(self) -> dict[str, Tensor]:
        """Tensors to store; the examples are those of the rehearsal memory."""
        return {"coefficients": self.coefficients.cpu().contiguous(), "labels": self.labels.cpu()}

    def to(self, device: torch.device) -> Recall:
        """The same on another device."""
        if self.examples.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("examples", "coefficients", "labels")}
        back = None if self.back is None else (self.back[0].to(device), self.back[1].to(device))
        return replace(self, **moved, back=back)


def raw_units(features: Float[Tensor, "*batch feature"], back: tuple[Tensor, Tensor] | None) -> Tensor:
    """Unit float64 vectors of features as they were before a whitening; zero rows stay zero."""
    wide = features.double()
    if back is not None:
        wide = torch.where((wide != 0).any(-1, keepdim=True), wide @ back[0] + back[1], torch.zeros_like(back[1]))
    return normalize(wide)
