"""Examples left out in turn: what they say of novelty where few can be held out."""

from __future__ import annotations
