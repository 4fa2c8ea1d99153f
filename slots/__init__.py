"""Continual learning and clustering that never forgets and can explain itself."""

from __future__ import annotations

__version__ = "0.1.0"
