"""The application: every router in one tuple, and what stands before them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

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


def application(service: Service) -> FastAPI:
    """The ASGI application of a service.

    Parameters
    ----------
    service : Service
        Opened and started by whoever runs the application.

    Returns
    -------
    FastAPI
    """
    app = described(ROUTERS)
    app.state.service = service
    app.state.metrics = metrics = Metrics(service)
    problems.install(app)
    app.add_middleware(NotedRoute)
    app.add_middleware(Quick, service=service)
    app.add_middleware(BoundedBodies, limits=service.settings.limits)
    app.add_middleware(Guard, service=service)  # the last one added is the first one asked
    app.add_middleware(Timed, told=metrics.request)  # added last, it stands first
    return app
