"""The routes that hand a model's current generation out as one file, and take such a file as the next generation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

from protocols.service.api.access import AdminCopy, AdminModel, TheCaller, TheService, the_service
from protocols.service.api.jobs.documents import JobDocument, begin
from protocols.service.api.jobs.receiving import receive
from protocols.service.api.problems import Problem
from protocols.service.inbox.events import record
from protocols.service.jobs.archives.packing import Archive, pack

router = APIRouter(prefix="/api/v1/models/{model}", tags=["generations"])

_PIECE = 1 << 18
_FORM = {"200": {"description": "A tar.", "content": {"application/x-tar": {"schema": {"type": "string"}}}}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "A tar as GET gives it; Content-Encoding may be gzip or deflate, Repr-Digest is compared.",
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class ImportOrder(BaseModel):
    """How an archive is imported.

    Parameters
    ----------
    dry_run : bool, default False
        Only find out what would change.
    generation : int, optional
        The one that must be there; another one ends the job with 409.
    """

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False
    generation: int | None = Field(None, ge=0, lt=1 << 53)


@router.get("/archive", response_class=StreamingResponse, openapi_extra={"responses": _FORM})
async def archive(service: TheService, model: AdminCopy, caller: TheCaller) -> StreamingResponse:
    """The current generation as a tar, the same bytes each time; unpacked it is a model folder."""
    made = await asyncio.to_thread(pack, model.folder)
    detail = {"sha256": made.digest, "bytes": made.size}
    await service.database.write(lambda it: record(it, caller, "model.archive", model=model.name, detail=detail))
    headers = {
        "Content-Length": str(made.size),
        "Content-Disposition": f'attachment; filename="{model.name}.tar"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(made.digest)).decode()}:",  # RFC 9530
        "Cache-Control": "no-store",
    }
    ended = BackgroundTask(made.file.close)
    return StreamingResponse(_pieces(made), media_type="application/x-tar", headers=headers, background=ended)


@router.put("/archive", status_code=202, openapi_extra=_BODY)
async def bring(
    request: Request, response: Response, model: AdminModel, caller: TheCaller, order: Annotated[ImportOrder, Query()]
) -> JobDocument:
    """Make an archive's model the next generation of this one, which can be undone; the result says what changes."""
    service = the_service(request)
    uploads = service.jobs.uploads
    with uploads.room() as there_is:
        if not there_is:
            raise Problem(503, "Other archives are coming in. Come again when they are there.", {"Retry-After": "10"})
        token, path = await asyncio.to_thread(uploads.begin)
        try:
            received = await receive(service, request, path)
            await asyncio.to_thread(uploads.settle)
        except BaseException:
            uploads.drop(token)
            raise
        arguments = {**order.model_dump(), "sha256": received.sha256, "bytes": received.size, "upload": token}
        try:
            return await begin(service, model, caller, response, kind="import", arguments=arguments, size=received.size)
        except Problem:
            uploads.drop(token)  # what else goes wrong leaves it open whether there is a job
            raise


def _pieces(made: Archive) -> Iterator[bytes]:
    while piece := made.file.read(_PIECE):
        yield piece
