"""Whether the process lives, and whether it takes requests; outside keys, so that probes work."""

from __future__ import annotations

from fastapi import APIRouter

from protocols.service.api.access import TheService
from protocols.service.api.problems import Problem

router = APIRouter(tags=["health"])


@router.get("/api/v1/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/api/v1/ready")
async def ready(service: TheService) -> dict[str, bool]:
    """Requests are welcome."""
    if not service.ready or not all(it.alive for it in service.models.values()):
        raise Problem(503, "The service is starting or stopping. Come again in a second.", {"Retry-After": "1"})
    return {"ready": True}
