"""Detection of wrong labels in a training set."""

from __future__ import annotations

from slots.label_errors.detection import LabelErrors as LabelErrors
from slots.label_errors.detection import find_label_errors as find_label_errors
from slots.label_errors.detection import score_labels as score_labels
from slots.label_errors.evidence import Evidence as Evidence
from slots.label_errors.evidence import n_displaced as n_displaced
from slots.label_errors.explanations import explain_label_errors as explain_label_errors
from slots.label_errors.training_dynamics import TrainingDynamics as TrainingDynamics
from slots.label_errors.training_dynamics import TrainingDynamicsConfig as TrainingDynamicsConfig
from slots.label_errors.training_dynamics import record_training_dynamics as record_training_dynamics
from slots.label_errors.training_dynamics import small_network as small_network

# Former names.
Watched, WatchConfig, watch_training = TrainingDynamics, TrainingDynamicsConfig, record_training_dynamics
judge_labels, shut_out = score_labels, n_displaced
