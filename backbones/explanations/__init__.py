"""Explanations of a network by gradients and pullbacks, and how good they are."""

from __future__ import annotations

from backbones.explanations.ascent import Ascent as Ascent
from backbones.explanations.ascent import accentuate as accentuate
from backbones.explanations.ascent import ascend as ascend
from backbones.explanations.ascent import counterfactual as counterfactual
from backbones.explanations.ascent import gradient as gradient
from backbones.explanations.metrics import alignment as alignment
from backbones.explanations.metrics import deletion_and_insertion as deletion_and_insertion
from backbones.explanations.metrics import infidelity as infidelity
from backbones.explanations.metrics import max_sensitivity as max_sensitivity
from backbones.explanations.metrics import perturb as perturb
from backbones.explanations.metrics import stability as stability
from backbones.explanations.pullbacks import pullback as pullback
from backbones.explanations.reconstruction import reconstruct as reconstruct
from backbones.explanations.stabilization import stabilize as stabilize
