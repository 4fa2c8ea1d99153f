"""Continual learning from a stream, one example or batch at a time."""

from __future__ import annotations

from slots.continual.decision import Decision as Decision
from slots.continual.decision import Labels as Labels
from slots.continual.learner import ContinualSlots as ContinualSlots
