"""``/rejected``: documents that were set aside, with their bytes and the reason."""

from __future__ import annotations

import base64
import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from app.api.paging import link_next
from app.api.parts import Parts, engine_of, parts_of
from app.domain.documents import DEFAULT_TENANT, MAX_SEQ
from app.services.rejected import drop_rejected, list_rejected, read_rejected, retry_rejected
from app.storage.rejected import Rejected

router = APIRouter(tags=["rejected documents"])

RejectedId = Annotated[int, Path(ge=0, le=MAX_SEQ)]
TheEngine = Annotated[Engine, Depends(engine_of)]


class WantedRejected(BaseModel):
    """Which to list."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[int | None, Field(ge=0, le=MAX_SEQ)] = None
    document_id: uuid.UUID | None = None


class RejectedSummary(BaseModel):
    """A document that was set aside. `id` is its order number, as several versions may be here.

    `stage` is where it failed: `ingest`, `classifier`, or `router` (it is stored then).
    `retried_at` is there while it waits in the queue for another try.
    """

    id: str
    document_id: uuid.UUID | None
    stage: str
    reason: str
    size: int
    rejected_at: datetime
    retried_at: datetime | None


class RejectedDetail(RejectedSummary):
    """With what was accepted: `body` as text, or `body_base64` where it is not UTF-8."""

    body: str | None
    body_base64: str | None


class RejectedList(BaseModel):
    """Some of them, accepted last first; ``next_cursor`` is null on the last page."""

    items: list[RejectedSummary]
    next_cursor: str | None


@router.get("/rejected")
def read_all_rejected(
    request: Request,
    response: Response,
    engine: TheEngine,
    wanted: Annotated[WantedRejected, Query()],
) -> RejectedList:
    """List what was set aside, what was accepted last first."""
    page, more = list_rejected(
        engine,
        DEFAULT_TENANT,
        limit=wanted.limit,
        after=wanted.cursor,
        document_id=wanted.document_id,
    )
    link_next(request, response, more)
    return RejectedList(
        items=[RejectedSummary.model_validate(_summary(one)) for one in page],
        next_cursor=None if more is None else str(more),
    )


@router.get("/rejected/{rejected_id}")
def read_one_rejected(rejected_id: RejectedId, engine: TheEngine) -> RejectedDetail:
    """Return one with its bytes."""
    found = read_rejected(engine, DEFAULT_TENANT, rejected_id)
    return RejectedDetail.model_validate(_summary(found) | body_fields(found.body))


@router.post("/rejected/{rejected_id}/retry", status_code=202)
async def retry_one_rejected(
    rejected_id: RejectedId, parts: Annotated[Parts, Depends(parts_of)]
) -> None:
    """Try one again, as the version that it was accepted as.

    It stays here until it is stored, or known to be older than what is stored.
    """
    await retry_rejected(
        parts.engine, parts.redis, parts.settings.redis_namespace, DEFAULT_TENANT, rejected_id
    )


@router.delete("/rejected/{rejected_id}", status_code=204)
def drop_one_rejected(rejected_id: RejectedId, engine: TheEngine) -> None:
    """Let go of one for good. One that could not be routed stays stored."""
    drop_rejected(engine, DEFAULT_TENANT, rejected_id)


def body_fields(body: bytes | None) -> dict[str, str | None]:
    """Return bytes as JSON can carry them."""
    try:
        return {"body": None if body is None else body.decode(), "body_base64": None}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": base64.b64encode(body or b"").decode()}


def _summary(one: Rejected) -> dict[str, object]:
    fields = {name: getattr(one, name, None) for name in RejectedSummary.model_fields}
    return fields | {"id": str(one.seq)}
