"""Features of a network as claims to be tested, and circuits of them; for any `nn.Module`."""

from __future__ import annotations

from backbones.explanations.circuits.nulls import Result as Result
from backbones.explanations.circuits.nulls import against as against
from backbones.explanations.circuits.nulls import discoveries as discoveries
from backbones.explanations.circuits.similarity import Matching as Matching
from backbones.explanations.circuits.similarity import cka as cka
from backbones.explanations.circuits.similarity import matching as matching
from backbones.explanations.circuits.similarity import procrustes as procrustes
from backbones.explanations.circuits.similarity import svcca as svcca
from backbones.explanations.circuits.universality import MEASURES as MEASURES
from backbones.explanations.circuits.universality import Likeness as Likeness
from backbones.explanations.circuits.universality import universality as universality
