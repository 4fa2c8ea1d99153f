"""Exact decisions: single pairs in float64, and whole blocks on a device."""
