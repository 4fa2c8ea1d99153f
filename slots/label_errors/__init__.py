"""Detection of wrong labels in a training set."""

from __future__ import annotations

from slots.label_errors.detection import LabelErrors as LabelErrors
from slots.label_errors.detection import find_label_errors as find_label_errors
from slots.label_errors.detection import judge_labels as judge_labels
from slots.label_errors.evidence import Evidence as Evidence
from slots.label_errors.evidence import shut_out as shut_out
from slots.label_errors.explanations import explain_label_errors as explain_label_errors
from slots.label_errors.training_dynamics import WatchConfig as WatchConfig
from slots.label_errors.training_dynamics import Watched as Watched
from slots.label_errors.training_dynamics import small_network as small_network
from slots.label_errors.training_dynamics import watch_training as watch_training
