"""Exact search of the slots that an input matches."""

from __future__ import annotations

from slots.index.kept_index import KeptIndex as KeptIndex
from slots.index.slot_index import Approximate as Approximate
from slots.index.slot_index import Backend as Backend
from slots.index.slot_index import SlotIndex as SlotIndex
