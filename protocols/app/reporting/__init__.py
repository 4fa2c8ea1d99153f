"""The report page of a model at any time after its fit."""
