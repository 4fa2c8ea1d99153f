"""The estimators for scikit-learn, under one roof."""

from slots.estimators_classifier import SlotClassifier
from slots.estimators_clusterer import SlotClusterer
from slots.estimators_outliers import SlotOutlierDetector

__all__ = ["SlotClassifier", "SlotClusterer", "SlotOutlierDetector"]
