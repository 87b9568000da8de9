"""``POST /documents/batch``: an array that is queued whole or not at all, and ``/batches/{id}``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.bodies import (
    BodyTooLarge,
    ClientGone,
    announced_length,
    encode_with_id,
    parse,
    read_body,
    too_large,
)
from app.api.errors import answer
from app.api.parts import Parts, engine_of, parts_of
from app.api.problems import MAX_VIOLATIONS
from app.domain.documents import DEFAULT_TENANT, Lane, lane_of
from app.domain.errors import BatchTooLong, DocyardError, InvalidInput, Violation
from app.domain.identifiers import new_id
from app.domain.json_arrays import NotAnArray, elements
from app.queue.append import BatchPart
from app.services.batches import Batch, get_batch

router = APIRouter(tags=["batches"])

MAX_ELEMENTS = 10_000
MAX_BYTES = 16 * 1024 * 1024
SLICE_BYTES = 128 * 1024
"""Validated in one go; then others have a turn on the event loop."""


class BatchOutput(BaseModel):
    """What has become of a batch so far.

    ``accepted = stored + stale + rejected + queued``, and
    ``planned = delivered + failed + superseded + cancelled + open``.
    """

    id: uuid.UUID
    intake: str
    accepted: int
    queued: int
    stored: int
    stale: int
    rejected: int
    planned: int
    open: int
    delivered: int
    failed: int
    superseded: int
    cancelled: int


@router.get("/batches/{batch_id}", response_model=BatchOutput)
async def read_batch(
    batch_id: uuid.UUID,
    parts: Annotated[Parts, Depends(parts_of)],
    engine: Annotated[Engine, Depends(engine_of)],
) -> Batch:
    """Count what has become of a batch or upload, also while it runs.

    `intake` is `receiving` while more may come, `complete`, or says how an upload ended early.
    `stale`: an older version than what is stored, or replaced by a later one of the same batch.
    """
    return await get_batch(
        engine, parts.redis, parts.settings.redis_namespace, DEFAULT_TENANT, batch_id
    )


class PostBatch:
    """Accepts a JSON array of documents, all of them or none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 202 once all documents are durable, a problem otherwise."""
        parts: Parts = scope["app"].state.parts
        request = Request(scope)
        try:
            body = await read_body(receive, announced_length(scope), MAX_BYTES)
            response = await self._accept(parts, body)
        except DocyardError as error:
            response = answer(request, error)
        except BodyTooLarge:
            response = too_large(
                scope,
                f"A batch may have {MAX_BYTES} bytes and {MAX_ELEMENTS} elements;"
                " send more as NDJSON to /documents/bulk.",
            )
        except ClientGone:
            return
        await response(scope, receive, send)

    async def _accept(self, parts: Parts, body: bytes) -> Response:
        encoded, ids, lane = await _documents(body)
        batch_id = new_id()
        await parts.intake.submit_many(encoded, lane, BatchPart(batch_id, ends=True))
        answered = {
            "id": str(batch_id),
            "accepted": len(ids),
            "ids": [str(one) for one in ids],
            "replaced": replaced(ids),
        }
        return Response(
            orjson.dumps(answered),
            202,
            {"Location": f"/batches/{batch_id}"},
            media_type="application/json",
        )


def replaced(ids: Sequence[uuid.UUID]) -> list[int]:
    """Return the places of elements that a later one with the same id comes behind."""
    last = {one: place for place, one in enumerate(ids)}
    return [place for place, one in enumerate(ids) if last[one] != place]


async def _documents(body: bytes) -> tuple[list[bytes], list[uuid.UUID], Lane]:
    """Validate all elements; return their JSON, their ids and the lane of the least urgent.

    Raises:
        InvalidInput: names the index of each element that is wrong.
        BatchTooLong: it has more elements than a batch may have.
    """
    encoded: list[bytes] = []
    ids: list[uuid.UUID] = []
    violations: list[Violation] = []
    lane, size = Lane.HIGH, 0
    try:
        for index, element in enumerate(elements(body)):
            if index == MAX_ELEMENTS:
                raise BatchTooLong(MAX_ELEMENTS)
            try:
                document = parse(element)
            except InvalidInput as error:
                violations += error.within(f"/{index}").violations
                if len(violations) >= MAX_VIOLATIONS:
                    break
                continue
            encoded.append(encode_with_id(document, element))
            assert document.id is not None  # noqa: S101  (given a line above)
            ids.append(document.id)
            if lane is Lane.HIGH:
                lane = lane_of(document.priority)
            size += len(element)
            if size > SLICE_BYTES:
                size = 0
                await asyncio.sleep(0)
    except NotAnArray as error:
        violations.append(Violation("", str(error)))
    if not (ids or violations):
        violations.append(Violation("", "The array is empty."))
    if violations:
        raise InvalidInput(violations)
    return encoded, ids, lane
