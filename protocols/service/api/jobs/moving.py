"""The route that hands out a model's current generation as one file."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from protocols.service.api.access import AdminCopy, TheCaller, TheService
from protocols.service.inbox.events import record
from protocols.service.jobs.archive import Archive, pack

router = APIRouter(prefix="/api/v1/models/{model}", tags=["generations"])

_PIECE = 1 << 18
_FORM = {"200": {"description": "A tar.", "content": {"application/x-tar": {"schema": {"type": "string"}}}}}


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


def _pieces(made: Archive) -> Iterator[bytes]:
    while piece := made.file.read(_PIECE):
        yield piece
