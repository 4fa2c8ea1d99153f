"""The estimators for scikit-learn, under one roof."""

from slots.estimators_classifier import SlotClassifier
from slots.estimators_clusterer import SlotClusterer

__all__ = ["SlotClassifier", "SlotClusterer"]
