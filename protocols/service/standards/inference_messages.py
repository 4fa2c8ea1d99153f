"""Messages of the Open Inference Protocol: requests taken apart, answers put together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from protocols.service.answering import inputs
from protocols.service.answering.loaded import Answers, Loaded
from protocols.service.api.at_first import AtFirst
from protocols.service.api.predicting import KINDS
from protocols.service.settings import Limits
from protocols.service.standards import tensors
from slots.errors import UsageError
from slots.model.slot_model import SlotModel

INPUT = "input"
"""Name of the only input."""


class InputTensor(BaseModel):
    """An input.

    Parameters
    ----------
    name : str
        ``input``.
    shape : list of int
        (example, feature) of rows, (example, height, width, channel) of pixels, (example,) of texts and image files.
    datatype : str
        FP32 (or another number) of rows, UINT8 of pixels, BYTES of texts and of image files.
    parameters : dict or None
        ``binary_data_size``: bytes of it behind the JSON document.
    data : list or None
        Its elements, flat or nested; image files in base64.
    """

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=1 << 31)]], AtFirst()] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class OutputTensor(BaseModel):
    """An output that is asked for.

    Parameters
    ----------
    name : str
        One of those that the model's metadata list.
    parameters : dict or None
        ``binary_data``: whether its bytes shall come behind the JSON document.
    """

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """A request.

    Parameters
    ----------
    id : str or None
        Comes back with the answer.
    parameters : dict or None
        ``false_alarm_rate`` in (0, 1): share of familiar inputs that may be called novel. ``timeout`` (microseconds):
        after it the answer is of no use. ``binary_data_output``: whether all outputs shall come as bytes.
    inputs : list of InputTensor
        The one input.
    outputs : list of OutputTensor or None
        What shall be answered; everything where it is missing.
    """

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: Annotated[list[InputTensor], AtFirst()] = Field(min_length=1, max_length=1)
    outputs: Annotated[list[OutputTensor], AtFirst()] | None = Field(default=None, max_length=64)


@dataclass(frozen=True)
class Parsed:
    """A request, taken apart.

    Parameters
    ----------
    request : InferenceRequest
        Its document.
    tensor : array or list
        The input as it came: numbers, or the elements of a BYTES tensor.
    """

    request: InferenceRequest
    tensor: npt.NDArray[Any] | list[bytes] | list[str]

    @property
    def rate(self) -> float | None:
        """The false-alarm rate that it asks for, in (0, 1)."""
        rate = self._number("false_alarm_rate")
        if rate is not None and not 0 < rate < 1:
            raise UsageError(f"`false_alarm_rate` must lie in (0, 1), got {rate}. 0.05 is usual.")
        return rate

    @property
    def timeout(self) -> float | None:
        """After how long the answer is of no use (seconds)."""
        timeout = self._number("timeout")
        return None if not timeout else timeout / 1e6

    def _number(self, name: str) -> float | None:
        found = (self.request.parameters or {}).get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e15:  # NaN is neither
            raise UsageError(f"The parameter `{name}` must be a number, got {str(found)[:64]!r}.")
        return float(found)


def parse(body: bytes, json_bytes: str | None, loaded: Loaded) -> Parsed:
    """Take a request's body apart.

    Parameters
    ----------
    body : bytes
        JSON, and behind it the bytes of binary tensors.
    json_bytes : str or None
        The header ``Inference-Header-Content-Length``: bytes of the JSON document. 0 means that the whole body is the
        input's bytes, as the extension's raw requests have it.
    loaded : Loaded
        Says what the bytes of such a request are.

    Returns
    -------
    Parsed

    Raises
    ------
    UsageError
        If it is no such request.
    """
    if json_bytes is None:
        head, rest = body, b""
    elif json_bytes.isascii() and json_bytes.isdigit() and int(json_bytes) <= len(body):
        if int(json_bytes) == 0:
            return _raw(body, loaded.model)
        head, rest = body[: int(json_bytes)], body[int(json_bytes) :]
    else:
        raise UsageError(
            "`Inference-Header-Content-Length` must be the bytes of the body's JSON document, "
            f"got {json_bytes[:32]!r} with a body of {len(body)} bytes."
        )
    try:
        request = InferenceRequest.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise UsageError(
            f"`{place}`: {first['msg']}. See /api/v1/openapi.json for the form that is expected."
        ) from error
    return Parsed(request, _tensor(request.inputs[0], rest))


def _tensor(given: InputTensor, rest: bytes) -> npt.NDArray[Any] | list[bytes] | list[str]:
    if given.name != INPUT:
        raise UsageError(f"The input's name must be {INPUT!r}, got {given.name[:64]!r}. The metadata list it.")
    asked = given.parameters or {}
    if any(name.startswith("shared_memory") for name in asked):
        raise UsageError("Shared memory is not offered. Send the input with the request.")
    size = asked.get("binary_data_size")
    if size is None:
        if rest:
            raise UsageError("Bytes follow the JSON document, and no `binary_data_size` says whose. Give it.")
        if given.data is None:
            raise UsageError("The input has neither `data` nor `binary_data_size`. Give one of the two.")
        return tensors.from_json(given.data, given.datatype, given.shape)
    if given.data is not None or size != len(rest):
        raise UsageError(
            f"`binary_data_size` must be the {len(rest)} bytes behind the JSON document, and `data` missing, "
            f"got {str(size)[:32]}. Mend the header `Inference-Header-Content-Length` or it."
        )
    return tensors.from_bytes(rest, given.datatype, given.shape)


def _raw(body: bytes, model: SlotModel) -> Parsed:
    """A request whose body is the bytes of its input: rows of float32, one text, one image file."""
    kind, shape = model.preprocessing.kind, model.preprocessing.shape
    tensor: npt.NDArray[Any] | list[bytes] = [body]
    if kind == "features":
        tensor = tensors.from_bytes(body, "FP32", (len(body) // (4 * shape[0]), shape[0]))
    return Parsed(InferenceRequest(inputs=[InputTensor(name=INPUT, shape=[], datatype="BYTES")]), tensor)


def model_inputs(parsed: Parsed, model: SlotModel, limits: Limits) -> npt.NDArray[Any]:
    """The input as a model takes it.

    Parameters
    ----------
    parsed : Parsed
        The request.
    model : SlotModel
        Says what it takes.
    limits : Limits
        How much that may be.

    Returns
    -------
    array of shape (example, ...)

    Raises
    ------
    SlotsError
        If the model does not take it.
    """
    kind, tensor = model.preprocessing.kind, parsed.tensor
    inputs.check_count(kind, len(tensor) if np.ndim(tensor) or isinstance(tensor, list) else 0, limits)
    if isinstance(tensor, np.ndarray):
        if kind == "features":
            return inputs.feature_rows(model, tensor)
        if kind == "images" and tensor.dtype == np.uint8:
            model.preprocessing.check(tensor)
            return tensor
    elif kind == "images":
        if isinstance(tensor[0], bytes):
            return inputs.images(model, [it for it in tensor if isinstance(it, bytes)], limits)
        return inputs.from_json(model, tensor, limits)
    elif kind == "text":
        return inputs.from_json(model, [_text(it) for it in tensor], limits)
    wanted = {"features": "FP32", "images": "UINT8 or BYTES", "text": "BYTES"}[kind]
    raise UsageError(f"The model takes {kind}: `datatype` must be {wanted}, got another. Its metadata say so.")


def _text(given: str | bytes) -> str:
    if isinstance(given, str):
        return given
    try:
        return given.decode()
    except UnicodeDecodeError as error:
        raise UsageError("A text must be UTF-8, got other bytes. Encode it.") from error


def input_form(model: SlotModel) -> dict[str, Any]:
    """Name, datatype and shape of the input, for the metadata."""
    kind, shape = model.preprocessing.kind, model.preprocessing.shape
    if kind == "images":
        channels, height, width = shape
        return {"name": INPUT, "datatype": "UINT8", "shape": [-1, height, width, channels]}
    return {"name": INPUT, "datatype": "BYTES" if kind == "text" else "FP32", "shape": [-1, *shape]}


def output_forms(model: SlotModel) -> dict[str, str]:
    """Datatype of each output by its name; all have the shape (example,)."""
    always = {"label": "BYTES", "label_id": "INT64", "answer": "BYTES", "slot": "INT64", "margin": "FP64"}
    return always if model.novelty is None else {**always, "p_value": "FP64", "novel": "BOOL"}


def reply(parsed: Parsed, found: Answers, name: str) -> tuple[bytes, int | None]:
    """The body of an answer.

    Parameters
    ----------
    parsed : Parsed
        What was asked.
    found : Answers
        What the model said.
    name : str
        The model's.

    Returns
    -------
    body : bytes
        JSON, and behind it the bytes of the outputs that were asked for as bytes.
    json_bytes : int or None
        Bytes of the JSON document where others follow.
    """
    request = parsed.request
    values = _values(found)
    binary_by_default = bool((request.parameters or {}).get("binary_data_output", False))
    asked = request.outputs or [OutputTensor(name=it) for it in values]
    outputs, behind = [], []
    check_outputs(request, list(values))  # at a very small false-alarm rate there is no novelty
    for it in asked:
        datatype, value = values[it.name]
        form = {"name": it.name, "datatype": datatype, "shape": [len(found.prediction)]}
        if (it.parameters or {}).get("binary_data", binary_by_default):
            behind.append(tensors.to_bytes(value, datatype))
            outputs.append({**form, "parameters": {"binary_data_size": len(behind[-1])}})
        else:
            outputs.append({**form, "data": tensors.to_json(value, datatype)})
    document: dict[str, Any] = {"model_name": name, "model_version": str(found.loaded.generation), "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b"".join((head, *behind)), len(head) if behind else None


def check_outputs(request: InferenceRequest, known: Sequence[str]) -> None:
    """Refuse a request that asks for an output that is not there, or for it in a form that is not offered."""
    for it in request.outputs or ():
        if it.name not in known:
            raise UsageError(f"There is no output {it.name[:64]!r}. The outputs are {', '.join(known)}.")
        asked = it.parameters or {}
        if asked.get("classification") or any(name.startswith("shared_memory") for name in asked):
            raise UsageError("`classification` and shared memory are not offered. Ask for `label` as it is.")


def _values(found: Answers) -> dict[str, tuple[str, npt.NDArray[Any] | list[str]]]:
    """Datatype and values of every output."""
    prediction, names = found.prediction, found.loaded.names
    values: dict[str, npt.NDArray[Any] | list[str]] = {
        "label": [names[int(label)] for label in prediction.labels],
        "label_id": prediction.labels,
        "answer": [KINDS[int(answer)] for answer in prediction.answers],
        "slot": prediction.slots,
        "margin": np.maximum(prediction.margins, -math.pi),  # minus infinity is no JSON, and no angle is larger
    }
    if found.novelty is not None:
        values |= {"p_value": found.novelty.p_values, "novel": found.novelty.novel}
    forms = output_forms(found.loaded.model)
    return {name: (forms[name], value) for name, value in values.items()}
