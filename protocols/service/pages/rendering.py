"""What all pages share: their templates, their head, how errors look, and the files they load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from protocols.pages.environment import page_environment
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import Role, the_caller, the_service
from protocols.service.api.problems import Problem, problem_of
from protocols.service.statuses import TITLES

_FILES = {
    "report.css": ("protocols.templates", "text/css; charset=utf-8"),
    "service.css": ("protocols.service.pages.static", "text/css; charset=utf-8"),
    "pages.js": ("protocols.service.pages.static", "text/javascript; charset=utf-8"),
    "review.js": ("protocols.service.pages.static", "text/javascript; charset=utf-8"),
    "htmx.min.js": ("protocols.service.pages.static", "text/javascript; charset=utf-8"),
    "htmx.LICENSE.txt": ("protocols.service.pages.static", "text/plain; charset=utf-8"),
}

_SAID, _LONGEST = "slots-said", 600


@dataclass(frozen=True)
class Place:
    """A page that the line of links leads to."""

    key: str
    title: str
    address: str


class Page(APIRoute):
    """A route for people: what goes wrong becomes a page that says so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with errors as pages."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                problem = problem_of(error)
                if problem.status >= 500 and not isinstance(error, Problem) and "Internal error" in problem.detail:
                    raise  # nobody foresaw it: it shall be seen where all such errors are
                return refused(request, problem)

        return handled


router = APIRouter(include_in_schema=False)


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A style sheet or script of the pages; only what is listed here can be asked for."""
    if name not in _FILES:
        raise Problem(404, "There is no such file.")
    content, tag = _file(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_FILES[name][1], headers=headers)


@router.get("/favicon.ico")
async def icon() -> Response:
    """There is none, and no page of errors for it."""
    return Response(status_code=204)


def page(request: Request, template: str, *, at: str, model: ServedModel | None = None, **values: Any) -> HTMLResponse:
    """A whole page.

    Parameters
    ----------
    request : Request
        Says who looks at it.
    template : str
        In ``templates``, an heir of ``base.html``.
    at : str
        Which of the links is the page's own.
    model : ServedModel, optional
        The model that it is about. Default: none, it is about the service.
    **values
        What the template names.

    Returns
    -------
    HTMLResponse
    """
    caller, service = the_caller(request), the_service(request)
    seen = [it for it in service.models.values() if caller.model in (None, it.name)]
    shown = model or (seen[0] if seen else None)
    text = part(
        request,
        template,
        model=shown,
        at=at,
        models=seen,
        places=[] if shown is None else _places(shown.name),
        service_places=_service_places(caller.role),
        caller=caller,
        told=_told(request),
        **values,
    )
    answer = HTMLResponse(text, headers={"Cache-Control": "no-store"})
    if _SAID in request.cookies:
        answer.delete_cookie(_SAID, path="/", httponly=True, samesite="strict")
    return answer


def go(request: Request, address: str, said: str = "") -> Response:
    """Send a browser on after something was done, with a sentence that the next page shows once.

    Parameters
    ----------
    request : Request
        A script's is told where to go by a header.
    address : str
        A path of this service.
    said : str, optional
        What was done. It travels in a cookie, not in the address: nobody else can put words there.

    Returns
    -------
    Response
    """
    answer: Response = Response(status_code=204, headers={"HX-Redirect": address})
    if not request.headers.get("hx-request"):
        answer = RedirectResponse(address, 303)
    if said:
        packed = base64.urlsafe_b64encode(said[:_LONGEST].encode()).decode()
        answer.set_cookie(_SAID, packed, max_age=60, path="/", httponly=True, samesite="strict")
    return answer


def _told(request: Request) -> str:
    """The sentence that `go` left for this page."""
    try:
        return base64.urlsafe_b64decode(request.cookies.get(_SAID, "")).decode()
    except ValueError:
        return ""


def part(request: Request, template: str, **values: Any) -> str:
    """A piece of a page, or a page, as text."""
    return environment().get_template(template).render(role=the_caller(request).role, Role=Role, **values)


def refused(request: Request, problem: Problem) -> Response:
    """A problem as a page, or as a piece of one where a script asked for a piece."""
    if problem.status == 401:
        return go(request, "/login")
    title = TITLES.get(problem.status, "Error")
    if request.headers.get("hx-request"):
        text = part(request, "refused.html", title=title, detail=problem.detail)
        return HTMLResponse(text, problem.status, headers=problem.headers)
    found = page(request, "problem.html", at="", title=title, detail=problem.detail)
    return HTMLResponse(found.body, problem.status, headers=problem.headers)


@cache
def environment() -> jinja2.Environment:
    """The environment of the report's pages, with the service's templates in front."""
    shared = page_environment()
    own = jinja2.PackageLoader("protocols.service.pages")
    assert shared.loader is not None
    made = shared.overlay(loader=jinja2.ChoiceLoader([own, shared.loader]))
    made.filters = {**shared.filters, "moment": moment}
    return made


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as a date and time of day; a dash for none.

    Examples
    --------
    >>> moment(0.0), moment(None)
    ('1970-01-01 00:00:00 UTC', '–')
    """
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _places(model: str) -> list[Place]:
    start = f"/models/{model}"
    return [
        Place("overview", "Overview", start),
        Place("slots", "Slots", f"{start}/slots"),
        Place("explain", "Explain", f"{start}/explain"),
        Place("review", "Review", f"{start}/review"),
        Place("clusters", "Clusters", f"{start}/clusters"),
        Place("history", "History", f"{start}/history"),
        Place("drift", "Drift", f"{start}/drift"),
    ]


def _service_places(role: Role) -> list[Place]:
    jobs = [Place("jobs", "Jobs", "/jobs")]
    return [*jobs, Place("keys", "Keys", "/keys"), Place("audit", "Audit", "/audit")] if role >= Role.ADMIN else jobs


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = (resources.files("protocols") / _inside(name)).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _inside(name: str) -> str:
    return "/".join([*_FILES[name][0].split(".")[1:], name])
