"""The estimators for scikit-learn, under one roof."""

from __future__ import annotations

from slots.estimators.classifier import SlotClassifier
from slots.estimators.clusterer import SlotClusterer
from slots.estimators.outlier_detector import SlotOutlierDetector

__all__ = ["SlotClassifier", "SlotClusterer", "SlotOutlierDetector"]
