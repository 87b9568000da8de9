"""What an element of ``POST /documents/batch`` is, and ``GET /batches/{id}``."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy import Engine

from app.api.arrays import Member
from app.api.bodies import encode_with_id, parse
from app.api.parts import Parts, engine_of, parts_of
from app.domain.documents import DEFAULT_TENANT, lane_of
from app.domain.limits import DocumentLimits
from app.services.batches import Batch, get_batch

router = APIRouter(tags=["batches"])


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

    `intake` is `receiving` while more may come, `complete`, or says how an upload ended early:
    `cut_off` where the client left, or a minute behind the end of a process that was killed.
    `stale`: an older version than what is stored, or replaced by a later one of the same batch.
    """
    return await get_batch(
        engine, parts.redis, parts.settings.redis_namespace, DEFAULT_TENANT, batch_id
    )


def read_document(element: bytes, limits: DocumentLimits) -> Member:
    """Validate a document of an array.

    Raises:
        InvalidInput: names every place that is wrong.
    """
    document = parse(element, limits)
    encoded = encode_with_id(document)
    assert document.id is not None  # noqa: S101  (given a line above)
    return Member(document.id, encoded, lane_of(document.priority))
