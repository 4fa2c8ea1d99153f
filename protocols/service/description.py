"""The API's description (OpenAPI): as FastAPI makes it, with the errors as they really look."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import APIRouter, FastAPI

_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457): what was wrong, and what to do.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
_V2_ERROR = {
    "type": "object",
    "description": "An error as the Open Inference Protocol has it.",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
_KINDS = {"4XX": "The request cannot be done as it is.", "5XX": "The service cannot do it now, or at all."}
_OF_THE_FRAMEWORK = ("HTTPValidationError", "ValidationError")


class Described(FastAPI):
    """An application whose description says what errors look like."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if not self.openapi_schema:
            self.openapi_schema = _with_errors(super().openapi())
        return self.openapi_schema


def described(routers: tuple[APIRouter, ...]) -> Described:
    """An application of some routers, and nothing else yet.

    Parameters
    ----------
    routers : tuple of APIRouter
        In the order in which a path is looked up.

    Returns
    -------
    Described
    """
    app = Described(
        title="slots",
        version=metadata.version("neural-slots"),
        docs_url=None,  # its pages load scripts from another host
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    for router in routers:
        app.include_router(router)
    return app


def _with_errors(document: dict[str, Any]) -> dict[str, Any]:
    """A document with our errors in the place of the framework's, which no route gives."""
    schemas = document["components"]["schemas"]
    for name in _OF_THE_FRAMEWORK:
        schemas.pop(name, None)
    schemas |= {"Problem": _PROBLEM, "InferenceError": _V2_ERROR}
    for path, operations in document["paths"].items():
        v2 = path == "/v2" or path.startswith("/v2/")
        media, name = ("application/json", "InferenceError") if v2 else ("application/problem+json", "Problem")
        content = {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {kind: {"description": says, "content": content} for kind, says in _KINDS.items()}
    return document
