"""``GET /documents/{id}/deliveries``: where a document went, and why."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from app.api.paging import link_next
from app.api.parts import Parts, parts_of
from app.domain.delivery_ids import DeliveryPlace as DeliveryKey
from app.domain.delivery_ids import delivery_id
from app.domain.documents import DEFAULT_TENANT
from app.domain.envelopes import webhook_id
from app.domain.errors import InvalidInput, Violation
from app.services.routes import where_document_went
from app.storage.document_deliveries import DeliveryPlace, DocumentDelivery

router = APIRouter(tags=["documents"])


class DeliveryOutput(BaseModel):
    """One route of a version of a document, and what has become of it.

    `result` is what a collector returned; `destination_url` is null for collectors.
    """

    id: str
    webhook_id: str
    destination_id: uuid.UUID
    destination_key: str | None
    destination_url: str | None
    version: int
    reason: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    due_at: datetime | None
    attempted_at: datetime | None
    ended_at: datetime | None
    result: Any


_SHOWN = DeliveryOutput.model_fields.keys() - {"id", "webhook_id"}


class UnplannedOutput(BaseModel):
    """That a document is stored and not routed yet, and why the last attempt failed."""

    model_config = ConfigDict(from_attributes=True)

    attempts: int
    error: str | None
    created_at: datetime
    retry_at: datetime


class DocumentDeliveries(BaseModel):
    """Where a document went.

    `routes` counts those of the version that is stored (null: the document was deleted);
    `explanation` says in a sentence why there are none; `unplanned` is there while it is not routed
    yet. `items` are of older versions as well, the newest first; `next_cursor` is null on the last
    page.
    """

    document_id: uuid.UUID
    routes: int | None
    explanation: str
    unplanned: UnplannedOutput | None
    items: list[DeliveryOutput]
    next_cursor: str | None


@router.get("/documents/{document_id}/deliveries")
def read_deliveries_of_document(
    document_id: uuid.UUID,
    request: Request,
    response: Response,
    parts: Annotated[Parts, Depends(parts_of)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: str | None = None,
) -> DocumentDeliveries:
    """Say where a document went: each route with its reason and state, or why there is none."""
    found = where_document_went(
        parts.engine,
        DEFAULT_TENANT,
        document_id,
        limit=limit,
        after=None if cursor is None else _place(cursor),
        router=parts.settings.router,
    )
    more = None if found.next is None else ".".join(str(part) for part in found.next)
    link_next(request, response, more)
    return DocumentDeliveries(
        document_id=document_id,
        routes=found.routes,
        explanation=found.explanation,
        unplanned=found.unplanned and UnplannedOutput.model_validate(found.unplanned),
        items=[_output(document_id, one) for one in found.deliveries],
        next_cursor=more,
    )


def _output(document_id: uuid.UUID, one: DocumentDelivery) -> DeliveryOutput:
    key = document_id, one.seq, one.destination_id, one.generation
    return DeliveryOutput.model_validate(
        {
            "id": delivery_id(DeliveryKey(*key)),
            "webhook_id": webhook_id(document_id, one.seq, one.generation),
            **{name: getattr(one, name) for name in _SHOWN},
        }
    )


def _place(cursor: str) -> DeliveryPlace:
    try:
        seq, destination_id, generation = cursor.split(".")
        place = DeliveryPlace(int(seq), uuid.UUID(destination_id), int(generation))
    except ValueError:
        place = None
    if place is None or not (0 <= place.seq < 2**63 and 0 <= place.generation < 2**15):
        raise InvalidInput([Violation("/cursor", "This is no cursor that was given out.")])
    return place
