"""All routes of the pages."""

from __future__ import annotations

from protocols.service.pages import explaining, gallery, home, rendering
from protocols.service.pages.jobs import following
from protocols.service.pages.review import grouping

PAGES = (rendering.router, home.router, gallery.router, explaining.router, grouping.router, following.router)
"""In the order in which a path is looked up."""
