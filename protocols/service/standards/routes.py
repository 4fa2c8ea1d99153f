"""The routes of the standards, in one tuple."""

from __future__ import annotations

from protocols.service.standards import labelstudio, open_inference, scraping

STANDARDS = (open_inference.router, scraping.router, labelstudio.router)
"""All of them."""
