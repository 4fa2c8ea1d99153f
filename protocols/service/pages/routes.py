"""All routes of the pages."""

from __future__ import annotations

from protocols.service.pages import explaining, gallery, home, rendering

PAGES = (rendering.router, home.router, gallery.router, explaining.router)
"""In the order in which a path is looked up."""
