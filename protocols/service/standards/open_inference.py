"""Open Inference Protocol v2 with its binary-tensor extension: what KServe, Triton and MLServer clients speak.

Source: https://github.com/open-inference/open-inference-protocol and Triton's ``extension_binary_data.md``.
"""

from __future__ import annotations

import gzip
import zlib
from importlib import metadata
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import ReadModel, TheService
from protocols.service.api.predicting import answered
from protocols.service.api.problems import Problem
from protocols.service.service import Service
from protocols.service.standards import inference_messages as messages

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_COMPRESS_FROM = 1024  # bytes; less is not worth the client's time
_MODEL = "/models/{model}"
_VERSION = "/models/{model}/versions/{generation}"


async def asked_version(model: ReadModel, generation: Annotated[str, Path(max_length=32)]) -> ServedModel:
    """The model that the path names, if the generation that the path names answers now."""
    _check_version(model, generation, model.current.generation)
    return model


AtVersion = Annotated[ServedModel, Depends(asked_version)]


@router.get("")
async def server() -> dict[str, Any]:
    """What the server is."""
    return {"name": "slots", "version": metadata.version("neural-slots"), "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(service: TheService) -> dict[str, bool]:
    """Requests are welcome; 503 if not."""
    _check_ready(service, *service.models.values())
    return {"ready": True}


@router.get(f"{_MODEL}/ready")
async def model_ready(service: TheService, model: ReadModel) -> dict[str, Any]:
    """The model answers; 503 if not."""
    _check_ready(service, model)
    return {"name": model.name, "ready": True}


@router.get(f"{_VERSION}/ready")
async def version_ready(service: TheService, model: AtVersion) -> dict[str, Any]:
    """The generation answers; 404 if another does."""
    return await model_ready(service, model)


@router.get(_MODEL)
async def model_metadata(model: ReadModel) -> dict[str, Any]:
    """Inputs and outputs of the model; its version is its generation."""
    loaded = model.current
    return {
        "name": model.name,
        "versions": [str(loaded.generation)],
        "platform": "slots_safetensors",
        "inputs": [messages.input_form(loaded.model)],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in messages.output_forms(loaded.model).items()
        ],
    }


@router.get(_VERSION)
async def version_metadata(model: AtVersion) -> dict[str, Any]:
    """The same, of the generation that the path names; 404 if another answers."""
    return await model_metadata(model)


JsonBytes = Annotated[
    str | None,
    Header(
        alias="Inference-Header-Content-Length",
        description="Bytes of the JSON document where those of tensors follow; 0 where the whole body is the input's.",
    ),
]
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "application/octet-stream": {}}, "description": "The outputs."}
}


def _in_place(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references: the document of all routes keeps definitions elsewhere."""
    if isinstance(schema, list):
        return [_in_place(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _in_place(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _in_place(part, definitions) for name, part in schema.items() if name != "$defs"}


_SCHEMA = messages.InferenceRequest.model_json_schema()
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _in_place(_SCHEMA, _SCHEMA["$defs"])},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(f"{_MODEL}/infer", response_class=Response, responses=_ANSWER, openapi_extra=_BODY)
async def infer(service: TheService, model: ReadModel, request: Request, json_bytes: JsonBytes = None) -> Response:
    """Answer inputs, in JSON or with binary tensors."""
    return await _inferred(service, model, request, json_bytes, None)


@router.post(f"{_VERSION}/infer", response_class=Response, responses=_ANSWER, openapi_extra=_BODY)
async def infer_version(
    service: TheService, model: AtVersion, generation: str, request: Request, json_bytes: JsonBytes = None
) -> Response:
    """The same, if the generation that the path names answers; 404 if another does."""
    return await _inferred(service, model, request, json_bytes, generation)


async def _inferred(
    service: Service, model: ServedModel, request: Request, json_bytes: str | None, generation: str | None
) -> Response:
    loaded = model.current
    parsed = messages.parse(await request.body(), json_bytes, loaded)
    messages.check_outputs(parsed.request, list(messages.output_forms(loaded.model)))
    limits = service.settings.limits
    x = await service.decoders.run(loaded.model, lambda: messages.model_inputs(parsed, loaded.model, limits))
    found = await answered(service, model, x, parsed.rate, parsed.timeout)
    if generation is not None:  # a new one may have come while the request waited
        _check_version(model, generation, found.loaded.generation)
    content, n_json = messages.reply(parsed, found, model.name)
    headers = {"Vary": "Accept-Encoding"}
    if n_json is not None:
        headers["Inference-Header-Content-Length"] = str(n_json)
    coding = _coding(request.headers.get("accept-encoding", "")) if len(content) >= _COMPRESS_FROM else None
    if coding is not None:
        content = gzip.compress(content, 1, mtime=0) if coding == "gzip" else zlib.compress(content, 1)
        headers["Content-Encoding"] = coding
    media_type = "application/json" if n_json is None else "application/octet-stream"
    return Response(content, media_type=media_type, headers=headers)


def _check_version(model: ServedModel, asked: str, answers: int) -> None:
    if asked != str(answers):
        raise Problem(
            404, f"Generation {asked!r} of `{model.name}` does not answer; {answers} does. Ask without a version."
        )


def _check_ready(service: Service, *models: ServedModel) -> None:
    if not service.ready or not all(it.alive for it in models):
        raise Problem(503, "The service is starting or stopping. Come again in a second.", {"Retry-After": "1"})


def _coding(accepted: str) -> str | None:
    """The first compression that a client accepts and that is offered."""
    for part in accepted.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() in ("gzip", "deflate") and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00"):
            return name.strip()
    return None
