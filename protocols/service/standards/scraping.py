"""The route that Prometheus reads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client.exposition import choose_encoder

from protocols.service.api.access import Role, TheCaller, allow
from protocols.service.api.problems import Problem
from protocols.service.standards.metrics import Metrics

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Figures in Prometheus' text format."}},
)
async def metrics(
    request: Request, caller: TheCaller, accept: Annotated[str, Header(max_length=1024)] = ""
) -> Response:
    """Figures of the service for Prometheus, in its text format or OpenMetrics."""
    allow(caller, Role.READ)
    if caller.model is not None:
        raise Problem(403, f"The key {caller.name!r} is for the model {caller.model!r} alone; these are of all models.")
    found: Metrics = request.app.state.metrics
    await found.look()
    encode, media_type = choose_encoder(accept)
    return Response(encode(found.registry), headers={"Content-Type": media_type, "Cache-Control": "no-store"})
