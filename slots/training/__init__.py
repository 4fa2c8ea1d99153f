"""Fits of a model."""

from __future__ import annotations

from slots.labels import check_labels as check_labels
from slots.training.backbone_hooks import constrain as constrain
from slots.training.backbone_hooks import schedule as schedule
from slots.training.config import TrainConfig as TrainConfig
from slots.training.defaults import AutoConfig as AutoConfig
from slots.training.defaults import Look as Look
from slots.training.fitting import FitResult as FitResult
from slots.training.fitting import fit as fit
from slots.training.fitting import hold_out as hold_out
from slots.training.loop import Regularizer as Regularizer
from slots.training.loop import columns as columns
from slots.training.muon import Muon as Muon
from slots.training.muon import matrices as matrices
