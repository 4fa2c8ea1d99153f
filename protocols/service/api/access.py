"""What every route asks first: which service, which model, and whether the caller may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.problems import Problem
from protocols.service.callers import LOCAL, Caller, Role
from protocols.service.service import Service

__all__ = [
    "LOCAL", "AdminCopy", "AdminModel", "Allowed", "Caller", "IngestModel", "LabelModel", "ReadModel", "Role",
    "TheCaller", "TheService", "allow", "allow_everywhere", "the_caller", "the_service",
]  # fmt: skip


def the_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


def the_caller(request: Request) -> Caller:
    """Who sent the request, as the gate before the routes found out."""
    caller: Caller = request.scope["slots.caller"]
    return caller


# Dependencies that are no coroutines are called in threads: hand-overs that take longer than a small model's answer.
async def _service_of(request: Request) -> Service:
    return the_service(request)


async def _caller_of(request: Request) -> Caller:
    return the_caller(request)


TheService = Annotated[Service, Depends(_service_of)]
TheCaller = Annotated[Caller, Depends(_caller_of)]


def allow(caller: Caller, role: Role, model: str | None = None) -> None:
    """Refuse a caller whose key may not do this.

    Raises
    ------
    Problem
        403.
    """
    if caller.role < role:
        raise Problem(
            403, f"The key {caller.name!r} has the role {caller.role.name.lower()}; this needs {role.name.lower()}."
        )
    if model is not None and caller.model not in (None, model):
        raise Problem(403, f"The key {caller.name!r} is for the model {caller.model!r} alone.")


def allow_everywhere(caller: Caller) -> None:
    """Refuse all but administrators of the whole service.

    Raises
    ------
    Problem
        403.
    """
    allow(caller, Role.ADMIN)
    if caller.model is not None:
        raise Problem(403, f"The key {caller.name!r} is for the model {caller.model!r} alone; this is about all.")


class Allowed:
    """A dependency: the model that the path names, if the caller's key has the role.

    Parameters
    ----------
    role : Role
        What the route needs.
    changes : bool, optional
        Whether it changes the model, or what is kept for it: not where the model follows another service. Default:
        what needs more than to read does.
    """

    def __init__(self, role: Role, *, changes: bool | None = None) -> None:
        self._role, self._changes = role, role > Role.READ if changes is None else changes

    async def __call__(
        self, service: TheService, caller: TheCaller, model: Annotated[str, Path(max_length=128)]
    ) -> ServedModel:
        """The model, or a problem: 403, 404 or 409."""
        allow(caller, self._role, model)
        found = service.models.get(model)
        if found is None:
            raise Problem(404, f"There is no model {model!r}. GET /api/v1/models lists them.")
        if self._changes and model in service.followers:
            raise Problem(409, f"The model {model!r} follows another service; here it only answers. Ask that service.")
        return found


ReadModel = Annotated[ServedModel, Depends(Allowed(Role.READ))]
IngestModel = Annotated[ServedModel, Depends(Allowed(Role.INGEST))]
LabelModel = Annotated[ServedModel, Depends(Allowed(Role.LABEL))]
AdminModel = Annotated[ServedModel, Depends(Allowed(Role.ADMIN))]
AdminCopy = Annotated[ServedModel, Depends(Allowed(Role.ADMIN, changes=False))]
