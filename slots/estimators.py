"""The estimators for scikit-learn, under one roof."""

from slots.estimators_classifier import SlotClassifier

__all__ = ["SlotClassifier"]
