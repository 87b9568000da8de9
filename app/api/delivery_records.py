"""``/deliveries``: what was delivered and what was not, attempt by attempt."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from app.api.delivery_filters import DeliveryId, DeliveryWhere
from app.api.paging import link_next
from app.api.parts import engine_of
from app.domain.delivery_ids import delivery_id as id_of
from app.domain.delivery_ids import parse_delivery_id
from app.domain.documents import DEFAULT_TENANT
from app.domain.envelopes import webhook_id
from app.services.deliveries import (
    find_deliveries,
    group_errors,
    read_delivery,
    replay_delivery,
)
from app.storage.delivery_search import DeliveryRecord, Wanted, seq_of

router = APIRouter(tags=["deliveries"])


class WantedDeliveries(DeliveryWhere):
    """Which deliveries to list."""

    state: Annotated[
        list[Wanted],
        Field(
            default_factory=list,
            description="Any of these; `undelivered` is pending, held and failed, `open` pending"
            " and held, `retrying` pending behind a first attempt.",
        ),
    ]
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: DeliveryId | None = None


class DeliverySummary(BaseModel):
    """A delivery as it stands. `document_id` is the event's where `event_type` is given."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    webhook_id: str
    document_id: uuid.UUID
    version: int
    event_type: str | None
    destination_id: uuid.UUID
    destination_key: str | None
    batch_id: uuid.UUID | None
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    reason: str
    created_at: datetime
    due_at: datetime | None
    attempted_at: datetime | None
    ended_at: datetime | None


class AttemptOutput(BaseModel):
    """One attempt. Phases are null where they were not reached, or not needed (`reused`)."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    started_at: datetime
    outcome: Annotated[str, Field(validation_alias="kind")]
    status: int | None
    error: str | None
    reused: bool | None
    name_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    wait_ms: float | None
    rest_ms: float | None
    total_ms: float | None
    headers: dict[str, str] | None
    body: str | None


class DeliveryDetail(DeliverySummary):
    """A delivery with every attempt that is still kept."""

    attempt_log: list[AttemptOutput]


class DeliveryList(BaseModel):
    """Some deliveries; ``next_cursor`` is null on the last page, which alone is surely full."""

    items: list[DeliverySummary]
    next_cursor: str | None


class AttemptList(BaseModel):
    """The attempts at a delivery, the first one first."""

    items: list[AttemptOutput]


class ErrorGroupOutput(BaseModel):
    """Deliveries that fail in the same way."""

    model_config = ConfigDict(from_attributes=True)

    destination_id: uuid.UUID
    destination_key: str | None
    status: int | None
    error: str
    failed: int
    retrying: int
    last_at: datetime
    last_error: str


class ErrorGroupList(BaseModel):
    """Groups, the largest first; ``complete`` is false where only the newest were looked at."""

    items: list[ErrorGroupOutput]
    complete: bool


def summary_fields(one: DeliveryRecord) -> dict[str, object]:
    """Return what is shown of a delivery."""
    fields = {name: getattr(one, name, None) for name in DeliverySummary.model_fields}
    return fields | {
        "id": id_of(one.place),
        "webhook_id": webhook_id(one.document_id, one.seq, one.generation),
    }


TheEngine = Annotated[Engine, Depends(engine_of)]


@router.get("/deliveries")
def read_deliveries(
    request: Request,
    response: Response,
    engine: TheEngine,
    wanted: Annotated[WantedDeliveries, Query()],
) -> DeliveryList:
    """List deliveries, those of the documents accepted last first.

    A page may have fewer than `limit` items although `next_cursor` leads on: a request looks at
    some 20,000 deliveries, and where few of them are wanted it returns those.
    """
    found = find_deliveries(
        engine,
        DEFAULT_TENANT,
        wanted.filter(engine, tuple(wanted.state)),
        limit=wanted.limit,
        after=None if wanted.cursor is None else parse_delivery_id(wanted.cursor),
    )
    more = None if found.next is None else id_of(found.next)
    link_next(request, response, more)
    items = [DeliverySummary.model_validate(summary_fields(one)) for one in found.items]
    return DeliveryList(items=items, next_cursor=more)


@router.get("/deliveries/errors")
def read_delivery_errors(
    engine: TheEngine, destination_id: uuid.UUID | None = None, since: AwareDatetime | None = None
) -> ErrorGroupList:
    """Group what failed and what is tried again by destination, status and error."""
    first_seq = 0 if since is None else seq_of(since)
    found = group_errors(engine, DEFAULT_TENANT, destination_id=destination_id, first_seq=first_seq)
    items = [ErrorGroupOutput.model_validate(one) for one in found.items]
    return ErrorGroupList(items=items, complete=found.complete)


@router.get("/deliveries/{delivery_id}")
def read_one_delivery(delivery_id: DeliveryId, engine: TheEngine) -> DeliveryDetail:
    """Return a delivery with all its attempts in full."""
    found, log = read_delivery(engine, DEFAULT_TENANT, parse_delivery_id(delivery_id))
    return DeliveryDetail.model_validate(
        {
            **summary_fields(found),
            "attempt_log": [AttemptOutput.model_validate(one) for one in log],
        }
    )


@router.get("/deliveries/{delivery_id}/attempts")
def read_attempts(delivery_id: DeliveryId, engine: TheEngine) -> AttemptList:
    """Return the attempts at a delivery: for as long as `ATTEMPTS_RETENTION_DAYS`."""
    _, log = read_delivery(engine, DEFAULT_TENANT, parse_delivery_id(delivery_id))
    return AttemptList(items=[AttemptOutput.model_validate(one) for one in log])


@router.post("/deliveries/{delivery_id}/replay", status_code=202)
def replay_one(delivery_id: DeliveryId, response: Response, engine: TheEngine) -> DeliverySummary:
    """Plan an ended delivery anew, with a webhook-id of its own; the answer is the new one."""
    made = replay_delivery(engine, DEFAULT_TENANT, parse_delivery_id(delivery_id))
    response.headers["Location"] = f"/deliveries/{id_of(made.place)}"
    return DeliverySummary.model_validate(summary_fields(made))
