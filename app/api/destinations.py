"""``/destinations``."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine

from app.api.parts import engine_of
from app.domain.destinations import (
    Body,
    Destination,
    DestinationChanges,
    DestinationInput,
)
from app.domain.documents import DEFAULT_TENANT
from app.services.destinations import (
    change_destination,
    create_destination,
    delete_destination,
    get_destination,
    list_destinations,
)

router = APIRouter(tags=["destinations"])


class DestinationOutput(BaseModel):
    """A destination, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    key: str
    url: str
    description: str | None
    enabled: bool
    timeout_seconds: float
    body: Body
    topics: list[str]
    categories: list[str]
    min_confidence: float | None
    uncertain: bool
    filter: dict[str, Any] | None
    parent_id: uuid.UUID | None
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


class NewDestinationOutput(DestinationOutput):
    """A destination as its creation answers: the only time that the secret is shown."""

    secret: str


class DestinationPage(BaseModel):
    """Some destinations; ``next_cursor`` is null on the last page."""

    items: list[DestinationOutput]
    next_cursor: uuid.UUID | None


@router.post("/destinations", status_code=201, response_model=NewDestinationOutput)
def register_destination(
    given: DestinationInput, response: Response, engine: Annotated[Engine, Depends(engine_of)]
) -> Destination:
    """Register a webhook; documents accepted from now on can reach it."""
    destination = create_destination(engine, DEFAULT_TENANT, given)
    response.headers["Location"] = f"/destinations/{destination.id}"
    return destination


@router.get("/destinations")
def read_destinations(
    request: Request,
    response: Response,
    engine: Annotated[Engine, Depends(engine_of)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: uuid.UUID | None = None,
    parent_id: Annotated[
        uuid.UUID | None,
        Query(description="Instead those of URLs that a router chose, under this destination."),
    ] = None,
) -> DestinationPage:
    """List the destinations that were registered, the oldest first."""
    page, more = list_destinations(
        engine, DEFAULT_TENANT, limit=limit, after=cursor, parent_id=parent_id
    )
    if more is not None:
        url = request.url.include_query_params(cursor=more, limit=limit)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    items = [DestinationOutput.model_validate(one) for one in page]
    return DestinationPage(items=items, next_cursor=more)


@router.get("/destinations/{destination_id}", response_model=DestinationOutput)
def read_destination(
    destination_id: uuid.UUID, engine: Annotated[Engine, Depends(engine_of)]
) -> Destination:
    """Return a destination."""
    return get_destination(engine, DEFAULT_TENANT, destination_id)


@router.patch("/destinations/{destination_id}", response_model=DestinationOutput)
def update_destination(
    destination_id: uuid.UUID,
    changes: DestinationChanges,
    engine: Annotated[Engine, Depends(engine_of)],
) -> Destination:
    """Change the fields that are sent; null clears `description`, `min_confidence`, `filter`."""
    return change_destination(engine, DEFAULT_TENANT, destination_id, changes)


@router.delete("/destinations/{destination_id}", status_code=204)
def remove_destination(
    destination_id: uuid.UUID, engine: Annotated[Engine, Depends(engine_of)]
) -> None:
    """Delete a destination; what it has open is cancelled."""
    delete_destination(engine, DEFAULT_TENANT, destination_id)
