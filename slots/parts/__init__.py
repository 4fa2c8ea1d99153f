"""Slots of parts: few training patches that show every image, and answers that are sums over them."""

from slots.parts.backbone import BagBackbone as BagBackbone
from slots.parts.backbone import PartsBackbone as PartsBackbone
from slots.parts.choosing import ChosenParts as ChosenParts
from slots.parts.choosing import PartConfig as PartConfig
from slots.parts.choosing import choose_parts as choose_parts
from slots.parts.fitting import PartsResult as PartsResult
from slots.parts.fitting import fit_parts as fit_parts
from slots.parts.multi_cover import greedy_multi_cover as greedy_multi_cover
from slots.parts.shares import PartShare as PartShare
from slots.parts.shares import PartsOfAnswer as PartsOfAnswer
from slots.parts.shares import explain_by_parts as explain_by_parts
