"""The model, its file, its edits and comparisons."""

from __future__ import annotations

from slots.model.comparison import Difference as Difference
from slots.model.comparison import diff as diff
from slots.model.editing import EditReport as EditReport
from slots.model.editing import delete as delete
from slots.model.editing import merge as merge
from slots.model.editing import relabel as relabel
from slots.model.examination import Examination as Examination
from slots.model.slot_model import SlotModel as SlotModel
from slots.storage.generations import Generation as Generation
