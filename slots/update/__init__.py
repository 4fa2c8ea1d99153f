"""What an update asks, and what new slots it makes, without touching the model."""

from __future__ import annotations

from slots.update.config import UpdateConfig as UpdateConfig
from slots.update.inquiry import Inquiry as Inquiry
from slots.update.plan import plan_update as plan_update
from slots.update.planned import NewSlots as NewSlots
from slots.update.queries import Proposal as Proposal
from slots.update.queries import propose as propose
from slots.update.report import UpdateReport as UpdateReport
from slots.update.self_training import Pool as Pool
from slots.update.self_training import SelfTrainingConfig as SelfTrainingConfig
from slots.update.self_training import SpreadConfig as SpreadConfig
from slots.update.snapshot import Snapshot as Snapshot
