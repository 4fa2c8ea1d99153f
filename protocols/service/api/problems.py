"""Every error as problem details (RFC 9457): a status, one sentence on what was wrong and one on what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protocols.service.answering.batching import Expired, Overloaded
from protocols.service.engines.unavailable import UnavailableError
from protocols.service.statuses import problem_details, status_of
from slots.errors import SlotsError


class Problem(Exception):  # noqa: N818  # the term of RFC 9457
    """An error that a route raises with its own status.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : str
        What was wrong, and what to do.
    headers : dict of str to str, optional
        Such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


def problem_of(error: Exception) -> Problem:
    """The problem that an exception stands for; what nobody foresaw is a 500 without its text."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Overloaded | Expired | UnavailableError):
        return Problem(503, str(error), {"Retry-After": "1"})
    if isinstance(error, RequestValidationError):
        return Problem(422, _described(error))
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), dict(error.headers or {}))
    return Problem(*status_of(error))


def document_of(problem: Problem) -> dict[str, Any]:
    """The members of the problem's JSON document."""
    return problem_details(problem.status, problem.detail)


def body_of(problem: Problem, path: str) -> tuple[dict[str, Any], str]:
    """Document and media type of a problem; under /v2 it has the form of the Open Inference Protocol.

    Clients of that protocol fail while they read any other, so whatever answers in place of a route goes by this too.
    """
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": problem.detail}, "application/json"
    return document_of(problem), "application/problem+json"


async def respond(request: Request, error: Exception) -> JSONResponse:
    """Answer an exception with its problem."""
    problem = problem_of(error)
    document, media_type = body_of(problem, request.url.path)
    return JSONResponse(document, problem.status, media_type=media_type, headers=problem.headers)


FORESEEN = (Problem, Overloaded, Expired, RequestValidationError, HTTPException, SlotsError)
"""What is answered and then forgotten; anything else is a fault of ours, and goes on to the server after its answer."""


def install(app: FastAPI) -> None:
    """Let an application answer every exception with its problem."""
    for kind in (*FORESEEN, Exception):
        app.add_exception_handler(kind, respond)


def _described(error: RequestValidationError) -> str:
    """The first thing that a request's form lacks, as a sentence."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return f"`{place}`: {first['msg']}. See /api/v1/openapi.json for the form that is expected."
