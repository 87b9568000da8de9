"""``GET /events``: what Docyard told about its own work."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from app.api.paging import link_next
from app.api.parts import engine_of
from app.domain.documents import DEFAULT_TENANT
from app.domain.operational_events import OperationalEventType
from app.services.operational_events import list_events

router = APIRouter(tags=["operational events"])


class WantedEvents(BaseModel):
    """Which events to list."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: uuid.UUID | None = None
    type: OperationalEventType | None = None
    destination_id: Annotated[uuid.UUID | None, Field(description="Only those about it.")] = None


class OperationalEventOutput(BaseModel):
    """An operational event, whether or not anybody subscribed to it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    type: str
    destination_id: uuid.UUID
    data: dict[str, Any]
    created_at: datetime


class OperationalEventPage(BaseModel):
    """Some events; ``next_cursor`` is null on the last page."""

    items: list[OperationalEventOutput]
    next_cursor: uuid.UUID | None


@router.get("/events")
def read_operational_events(
    request: Request,
    response: Response,
    engine: Annotated[Engine, Depends(engine_of)],
    wanted: Annotated[WantedEvents, Query()],
) -> OperationalEventPage:
    """List operational events, the newest first."""
    page, more = list_events(
        engine,
        DEFAULT_TENANT,
        limit=wanted.limit,
        after=wanted.cursor,
        event_type=wanted.type,
        destination_id=wanted.destination_id,
    )
    link_next(request, response, more)
    items = [OperationalEventOutput.model_validate(one) for one in page]
    return OperationalEventPage(items=items, next_cursor=more)
