"""``/dead-letters``: messages of the queue that were given up."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from app.api.paging import link_next
from app.api.parts import Parts, engine_of, parts_of
from app.api.rejected import body_fields
from app.domain.documents import DEFAULT_TENANT
from app.services.rejected import (
    drop_dead_letter,
    list_dead_letters,
    read_dead_letter,
    retry_dead_letter,
)
from app.storage.dead_letters import DeadLetter

router = APIRouter(tags=["rejected documents"])

# Postgres takes no NUL in a text.
MessageId = Annotated[str, Path(max_length=200, pattern=r"^[^\x00]+$")]
TheEngine = Annotated[Engine, Depends(engine_of)]


class WantedDeadLetters(BaseModel):
    """Which to list."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00]+$")] = None


class DeadLetterSummary(BaseModel):
    """A message that was given up; `documents` counts what it carries."""

    id: str
    queue: str
    reason: str | None
    documents: int
    size: int
    died_at: datetime


class DeadLetterDetail(DeadLetterSummary):
    """With its bytes: `body` as text, or `body_base64` where it is not UTF-8."""

    body: str | None
    body_base64: str | None


class DeadLetterList(BaseModel):
    """Some of them, queued last first; ``next_cursor`` is null on the last page."""

    items: list[DeadLetterSummary]
    next_cursor: str | None


@router.get("/dead-letters")
def read_dead_letters(
    request: Request,
    response: Response,
    engine: TheEngine,
    wanted: Annotated[WantedDeadLetters, Query()],
) -> DeadLetterList:
    """List messages that were given up, what was queued last first."""
    page, more = list_dead_letters(engine, DEFAULT_TENANT, limit=wanted.limit, after=wanted.cursor)
    link_next(request, response, more)
    items = [DeadLetterSummary.model_validate(_summary(one)) for one in page]
    return DeadLetterList(items=items, next_cursor=more)


@router.get("/dead-letters/{message_id}")
def read_one_dead_letter(message_id: MessageId, engine: TheEngine) -> DeadLetterDetail:
    """Return one with its bytes."""
    found = read_dead_letter(engine, DEFAULT_TENANT, message_id)
    return DeadLetterDetail.model_validate(_summary(found) | body_fields(found.body))


@router.post("/dead-letters/{message_id}/retry", status_code=202)
async def retry_one_dead_letter(
    message_id: MessageId, parts: Annotated[Parts, Depends(parts_of)]
) -> None:
    """Put one back to its queue; what of it is applied already does not count again."""
    await retry_dead_letter(
        parts.engine, parts.redis, parts.settings.redis_namespace, DEFAULT_TENANT, message_id
    )


@router.delete("/dead-letters/{message_id}", status_code=204)
def drop_one_dead_letter(message_id: MessageId, engine: TheEngine) -> None:
    """Let go of one for good, and of the documents that it carries."""
    drop_dead_letter(engine, DEFAULT_TENANT, message_id)


def _summary(one: DeadLetter) -> dict[str, object]:
    fields = {name: getattr(one, name, None) for name in DeadLetterSummary.model_fields}
    return fields | {"id": one.message_id}
