"""The routes of the standards, in one tuple."""

from __future__ import annotations

from protocols.service.standards import open_inference

STANDARDS = (open_inference.router,)
"""All of them."""
