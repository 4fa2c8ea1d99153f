"""Continual learning from a stream, one example or batch at a time."""

from __future__ import annotations

from slots.continual.learner import ContinualSlots as ContinualSlots
from slots.continual.learner import Decision as Decision
from slots.continual.learner import Labels as Labels
