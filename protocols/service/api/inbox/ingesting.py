"""Routes that take what comes in: answered, kept, and acknowledged when it is on the disk."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, Field
from starlette.types import Scope

from protocols.service.answering import contents
from protocols.service.answering.contents import Contents
from protocols.service.answering.served_model import ServedModel
from protocols.service.api.access import Caller, IngestModel, TheCaller, TheService
from protocols.service.api.at_first import AtFirst
from protocols.service.api.predicting import Inputs, OneAnswer, Timeout, answered, as_rows
from protocols.service.api.problems import Problem
from protocols.service.inbox.idempotency import LONGEST_KEY, RequestKey
from protocols.service.inbox.refusals import check_item_id
from protocols.service.inbox.storing import Arrival, Delivery, Fate
from protocols.service.service import Service
from protocols.service.settings import Keeping, Policy

router = APIRouter(prefix="/api/v1/models/{model}/items", tags=["items"])

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=LONGEST_KEY,
        description="The same key with the same request is done once, and answered as the first time for a day.",
    ),
]


async def _request_key(caller: TheCaller, request: Request, key: Key = None) -> RequestKey | None:
    return None if key is None else request_key(caller, request.scope, key, await request.body())


def request_key(caller: Caller, scope: Scope, key: str | None, body: bytes) -> RequestKey | None:
    """What tells a request that comes again from others: who sent it, where to, its ``Idempotency-Key``, its body."""
    if key is None:
        return None
    route = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
    return RequestKey.of(caller.key_id, route, key, body)


Repeat = Annotated[RequestKey | None, Depends(_request_key)]
"""Under which a response is kept for when its request comes again; None for one without a key."""


class ItemsIn(Inputs):
    """Inputs that come in.

    Parameters
    ----------
    inputs : list
        Rows of numbers, texts, or image files in base64, as the model's ``kind`` says.
    ids : list of str or null, optional
        Of each input the id in your own store. Default: the SHA-256 of its content.
    store : str, optional
        What is kept, such as ``unmatched:all,matched:1%``, ``all`` or ``none``. Default: the service's own policy.
    """

    ids: Annotated[list[str | None], AtFirst()] | None = None
    store: str | None = Field(default=None, max_length=100)


class OneReceipt(BaseModel):
    """What became of one input.

    Parameters
    ----------
    id : str
        Its id.
    fate : {"stored", "there", "passed"}
        Kept now and on the disk; kept before; or answered only, as the policy says.
    answer : OneAnswer
        The answer it got now.
    """

    id: str
    fate: str
    answer: OneAnswer


class Receipts(BaseModel):
    """What became of the inputs of a request.

    Parameters
    ----------
    model : str
        The model that answered.
    generation : int
        Its generation.
    items : list of OneReceipt
        In the order of the inputs.
    """

    model: str
    generation: int
    items: list[OneReceipt]


@router.post("", response_model=Receipts)
async def ingest(
    service: TheService,
    model: IngestModel,
    *,
    caller: TheCaller,
    given: ItemsIn,
    timeout: Timeout = None,
    repeat: Repeat = None,
) -> Any:
    """Answer inputs and keep them; what is acknowledged is on the disk."""
    policy = chosen_policy(service.settings.keeping, given.store)
    ids = checked_ids(given.ids, len(given.inputs))
    several = await read_inputs(model, given.inputs, service)
    return await taken(service, model, caller, several, ids=ids, policy=policy, timeout=timeout, repeat=repeat)


@router.post("/image", response_model=Receipts)
async def ingest_image(
    service: TheService,
    model: IngestModel,
    *,
    caller: TheCaller,
    request: Request,
    id: Annotated[str | None, Query(max_length=1024, description="The id in your own store.")] = None,  # noqa: A002
    store: Annotated[str | None, Query(max_length=100, description="What is kept, as in POST /items.")] = None,
    timeout: Timeout = None,
    repeat: Repeat = None,
) -> Any:
    """Answer one image and keep it: the request's body is the file."""
    kind = model.current.model.preprocessing.kind
    if kind != "images":
        raise Problem(422, f"`{model.name}` takes {kind}, no images. POST to items as JSON.")
    policy = chosen_policy(service.settings.keeping, store)
    ids = checked_ids([id], 1)
    body = await request.body()
    loaded, limits = model.current.model, service.settings.limits
    several = await service.decoders.run(loaded, lambda: contents.of_images(loaded, [body], limits))
    return await taken(service, model, caller, several, ids=ids, policy=policy, timeout=timeout, repeat=repeat)


async def taken(
    service: Service,
    model: ServedModel,
    caller: Caller,
    several: Contents,
    *,
    ids: Sequence[str | None],
    policy: Policy,
    timeout: float | None = None,  # the client's own, told to the model
    repeat: RequestKey | None = None,
) -> dict[str, Any]:
    """Answer inputs, keep them, and say what became of them; a document of the form `Receipts`.

    Parameters
    ----------
    service : Service
        The running service.
    model : ServedModel
        Who answers.
    caller : Caller
        Who sent them.
    several : Contents
        The inputs.
    ids : sequence of str or None
        Id of each, as `checked_ids` returns them.
    policy : Policy
        Which are kept.
    timeout : float, optional
        Seconds after which the answer is of no use.
    repeat : RequestKey, optional
        Under which the response is kept for when the request comes again.
    """
    with service.inbox.in_flight.only(repeat):
        found = await answered(service, model, several.x, None, timeout)
        answers = as_rows(found)
        made = arrivals(several, answers, ids, policy, service.settings.keeping)

        def response(fates: Sequence[Fate]) -> dict[str, Any]:
            items = [
                {"id": it.id, "fate": fate, "answer": answer}
                for it, fate, answer in zip(made, fates, answers, strict=True)
            ]
            return {"model": model.name, "generation": found.loaded.generation, "items": items}

        receipt = await service.inbox.store(
            Delivery(
                model.name, found.loaded.generation, time.time(), caller.key_id, made, request=repeat, response=response
            )
        )
        return response(receipt.fates) if receipt.again is None else receipt.again.response


def arrivals(
    several: Contents, answers: Sequence[dict[str, Any]], ids: Sequence[str | None], policy: Policy, keeping: Keeping
) -> list[Arrival]:
    """Inputs and their answers as they are kept.

    Parameters
    ----------
    several : Contents
        The inputs.
    answers : sequence of dict
        Their answers, as `as_rows` gives them.
    ids : sequence of str or None
        Id of each; None for the digest of its content.
    policy : Policy
        Which are kept.
    keeping : Keeping
        Which contents lie in the database.
    """
    made = []
    for place, answer in enumerate(answers):
        content = several.files[place]
        digest = hashlib.sha256(content).hexdigest()
        novelty = answer["novelty"]
        made.append(
            Arrival(
                ids[place] or digest,
                several.media[place],
                content,
                digest,
                answer["answer"],
                answer["label_id"],
                answer["label"],
                answer["slot"],
                -math.inf if answer["margin"] is None else answer["margin"],
                None if novelty is None else novelty["p_value"],
                None if novelty is None else novelty["score"],
                policy.keeps(answer["answer"], digest),
                len(content) < keeping.inline,
            )
        )
    return made


def checked_ids(given: Sequence[str | None] | None, n: int) -> list[str | None]:
    """Ids as they are kept, one an input; None where the digest is the id.

    Raises
    ------
    Problem
        422 if there are more or fewer.
    DataError
        If one cannot be an id.
    """
    if given is None:
        return [None] * n
    if len(given) != n:
        raise Problem(422, f"`ids` must have one id for each of the {n} inputs, got {len(given)}. Send null for none.")
    return [None if it is None else check_item_id(it) for it in given]


def chosen_policy(keeping: Keeping, words: str | None) -> Policy:
    """The policy that a request asks for, or the service's own."""
    return keeping.policy if words is None else Policy.parse(words, keeping.policy)


async def read_inputs(model: ServedModel, given: Sequence[Any], service: Service) -> Contents:
    """Inputs of a JSON list; images are decoded beside the event loop."""
    loaded, limits = model.current.model, service.settings.limits
    return await service.decoders.run(loaded, lambda: contents.contents(loaded, given, limits))
