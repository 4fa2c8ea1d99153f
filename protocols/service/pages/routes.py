"""All routes of the pages."""

from __future__ import annotations

from protocols.service.pages import explaining, gallery, home, rendering
from protocols.service.pages.drift import page as drift
from protocols.service.pages.guarding import audit, keys, login
from protocols.service.pages.jobs import clusters, following, history
from protocols.service.pages.review import grouping

ABOUT_MODELS = (home.router, gallery.router, explaining.router, grouping.router, history.router, clusters.router)
PAGES = (rendering.router, *ABOUT_MODELS, drift.router, following.router, keys.router, audit.router, login.router)
"""In the order in which a path is looked up."""
