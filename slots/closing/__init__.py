"""The closing pass of a fit: exact caps, then only the slots that earn their place."""

from __future__ import annotations

from slots.closing.closing_pass import Closed as Closed
from slots.closing.closing_pass import answer as answer
from slots.closing.closing_pass import close_fit as close_fit
from slots.closing.config import ClosingConfig as ClosingConfig
from slots.closing.config import ClosingReport as ClosingReport
from slots.features.exemplars import support_features as support_features
from slots.features.exemplars import thumbnails as thumbnails
