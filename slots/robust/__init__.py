"""Slots whose answers hold in a ball around the input: how they are trained, and what is certified of any of them."""

from slots.robust.certificate import Certificate as Certificate
from slots.robust.certificate import certify as certify
from slots.robust.certified_answers import Decision as Decision
from slots.robust.certified_answers import certified_answers as certified_answers
from slots.robust.certified_answers import predict_certified as predict_certified
from slots.robust.config import Norm as Norm
from slots.robust.config import RobustConfig as RobustConfig
from slots.robust.linf_distance.slots import LinfDistanceSlots as LinfDistanceSlots
from slots.robust.linf_distance.training import LinfDistanceConfig as LinfDistanceConfig
from slots.robust.linf_distance.training import fit_linf_distance as fit_linf_distance
from slots.robust.nearest_slot import LabelledSlots as LabelledSlots
from slots.robust.nearest_slot import nearest_slot_radii as nearest_slot_radii
