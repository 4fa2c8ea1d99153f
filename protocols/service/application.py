"""The application: every router in one tuple, and what stands before them."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp

from protocols.service.api import drifting, explaining, health, models, predicting, problems, slots
from protocols.service.api.guarding import events, keys, sessions
from protocols.service.api.inbox import ingesting, labelling, reading, reviewing, streaming
from protocols.service.api.jobs import following, generations, moving, starting
from protocols.service.description import described
from protocols.service.pages.routes import PAGES
from protocols.service.service import Service
from protocols.service.standards.metrics import Metrics
from protocols.service.standards.routes import STANDARDS
from protocols.service.web.bodies import BoundedBodies
from protocols.service.web.guard import Guard
from protocols.service.web.quick import Quick
from protocols.service.web.timing import NotedRoute, Timed

INBOX = (ingesting.router, streaming.router, reading.router, labelling.router, reviewing.router)
GUARDING = (keys.router, events.router, sessions.router)
JOBS = (starting.router, following.router, generations.router, moving.router)
ANSWERS = (health.router, models.router, slots.router, predicting.router, explaining.router, drifting.router)
ROUTERS = (*ANSWERS, *INBOX, *JOBS, *GUARDING, *STANDARDS, *PAGES)
"""All routes, in the order in which a path is looked up."""


def api_description() -> dict[str, Any]:
    """The OpenAPI document of the service; no service runs for it."""
    return described(ROUTERS).openapi()


def application(service: Service) -> ASGIApp:
    """The ASGI application of a service.

    What every request goes through stands outside the framework, which has layers of its own that a plain request needs
    none of: `Timed`, then `Guard`, `BoundedBodies` and `Quick`, then the framework with its routes.

    Parameters
    ----------
    service : Service
        Opened and started by whoever runs the application.

    Returns
    -------
    ASGIApp
    """
    routes = described(ROUTERS)
    routes.state.service = service
    routes.state.metrics = metrics = Metrics(service)
    problems.install(routes)
    routes.add_middleware(NotedRoute)
    bounded = BoundedBodies(Quick(routes, service), service.settings.limits)
    return Timed(Guard(bounded, service), metrics.request)
