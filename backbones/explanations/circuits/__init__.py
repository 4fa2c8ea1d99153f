"""Features of a network as claims to be tested, and circuits of them; for any `nn.Module`."""

from __future__ import annotations

from backbones.explanations.circuits.cards import NULLS as NULLS
from backbones.explanations.circuits.cards import Argument as Argument
from backbones.explanations.circuits.cards import UnitCard as UnitCard
from backbones.explanations.circuits.cards import unit_cards as unit_cards
from backbones.explanations.circuits.examples import dataset_examples as dataset_examples
from backbones.explanations.circuits.examples import spectrum as spectrum
from backbones.explanations.circuits.facets import Facets as Facets
from backbones.explanations.circuits.facets import facets as facets
from backbones.explanations.circuits.families import Families as Families
from backbones.explanations.circuits.families import Family as Family
from backbones.explanations.circuits.families import equivariance_error as equivariance_error
from backbones.explanations.circuits.families import families as families
from backbones.explanations.circuits.families import joint_tuning as joint_tuning
from backbones.explanations.circuits.nulls import Result as Result
from backbones.explanations.circuits.nulls import against as against
from backbones.explanations.circuits.nulls import discoveries as discoveries
from backbones.explanations.circuits.similarity import Matching as Matching
from backbones.explanations.circuits.similarity import cka as cka
from backbones.explanations.circuits.similarity import matching as matching
from backbones.explanations.circuits.similarity import procrustes as procrustes
from backbones.explanations.circuits.similarity import svcca as svcca
from backbones.explanations.circuits.stimuli import Stimuli as Stimuli
from backbones.explanations.circuits.stimuli import Tuning as Tuning
from backbones.explanations.circuits.stimuli import draw_stimuli as draw_stimuli
from backbones.explanations.circuits.stimuli import synthetic_examples as synthetic_examples
from backbones.explanations.circuits.units import Recording as Recording
from backbones.explanations.circuits.units import Unit as Unit
from backbones.explanations.circuits.units import record as record
from backbones.explanations.circuits.units import shuffled as shuffled
from backbones.explanations.circuits.universality import MEASURES as MEASURES
from backbones.explanations.circuits.universality import Likeness as Likeness
from backbones.explanations.circuits.universality import universality as universality
from backbones.explanations.circuits.weights import Edges as Edges
from backbones.explanations.circuits.weights import Implementation as Implementation
from backbones.explanations.circuits.weights import edges_of as edges_of
from backbones.explanations.circuits.weights import implementation as implementation
from backbones.explanations.circuits.weights import use_by_later_units as use_by_later_units
