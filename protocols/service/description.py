"""The API's description (OpenAPI): as FastAPI makes it, with the errors as they really look."""

from __future__ import annotations

import asyncio
import json
from importlib import metadata
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

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
    """An application whose description says what errors look like, and is written once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(openapi_url=None, **options)  # the framework's own route would write it for every request
        self._document: dict[str, Any] | None = None
        self._text = b""
        self._writing = asyncio.Lock()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self._document is None:
            self._document = _with_errors(super().openapi())
        return self._document

    async def text(self, _: Request) -> Response:
        """The document as it is sent; making it takes half a second of a thread, and others are answered meanwhile."""
        async with self._writing:
            if not self._text:
                self._text = await asyncio.to_thread(lambda: json.dumps(self.openapi(), separators=(",", ":")).encode())
        return Response(self._text, media_type="application/json")


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
        redirect_slashes=False,
    )
    app.add_route("/api/v1/openapi.json", app.text, include_in_schema=False)
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
