"""``/documents/{id}``."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from app.api.parts import Parts, engine_of, parts_of
from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DocumentNotFound
from app.queue.oldest import last_accepted_async
from app.services.documents import delete_document, get_document
from app.services.purging import purge_document
from app.storage.purging import Purged
from app.storage.tables.documents import Document

router = APIRouter(tags=["documents"])

LONGEST_WAIT_SECONDS = 20
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25


class DocumentOutput(BaseModel):
    """A document as it is stored. ``category`` is null until a model has classified it."""

    id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    category: str | None
    confidence: float | None
    model_version: str | None
    content: str
    version: int
    topics: list[str] | None
    keys: list[str] | None
    delivery: str | None
    priority: int | None
    attributes: dict[str, Any] | None


@router.get("/documents/{document_id}", response_model=DocumentOutput)
async def read_document(
    document_id: uuid.UUID,
    response: Response,
    engine: Annotated[Engine, Depends(engine_of)],
    prefer: Annotated[str | None, Header(description="`wait=5`: wait while it is queued.")] = None,
) -> Document:
    """Return a document with its category; 404 while it is queued."""
    wait = wait_preference(prefer)
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait}"
    until = time.monotonic() + (wait or 0)
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await run_in_threadpool(get_document, engine, DEFAULT_TENANT, document_id)
        except DocumentNotFound:
            if time.monotonic() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


@router.delete("/documents/{document_id}", status_code=204)
def remove_document(document_id: uuid.UUID, engine: Annotated[Engine, Depends(engine_of)]) -> None:
    """Delete a document; open deliveries are cancelled, queued older copies stay out."""
    delete_document(engine, DEFAULT_TENANT, document_id)


class PurgeOutput(BaseModel):
    """How many rows were removed.

    `documents` counts those as well that collectors called for while they had this one;
    `dead_letters` those messages from which the document was taken.
    """

    documents: int
    deliveries: int
    attempts: int
    rejected: int
    dead_letters: int


@router.post("/documents/{document_id}/purge", response_model=PurgeOutput)
async def purge_everywhere(
    document_id: uuid.UUID, parts: Annotated[Parts, Depends(parts_of)]
) -> Purged:
    """Remove a document everywhere: every version accepted until now, with all answers to it.

    Also when it is only queued, set aside or deleted; what comes later under its id is a new
    document.
    """
    accepted_until = await last_accepted_async(parts.redis, parts.settings.redis_namespace)
    return await run_in_threadpool(
        purge_document, parts.engine, DEFAULT_TENANT, document_id, accepted_until
    )


def wait_preference(prefer: str | None) -> int | None:
    """Return the seconds of ``Prefer: wait=n`` (RFC 7240), capped; None when not asked for."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", prefer or "", re.IGNORECASE)
    return min(int(match[1]), LONGEST_WAIT_SECONDS) if match else None
