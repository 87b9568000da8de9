"""``/destinations``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine

from app.api.paging import link_next
from app.api.parts import Parts, engine_of, parts_of
from app.domain.delivery_rules import BatchInput, QueueKind, RetryInput
from app.domain.destinations import (
    Body,
    Destination,
    DestinationChanges,
    DestinationInput,
    Kind,
)
from app.domain.documents import DEFAULT_TENANT
from app.domain.health import Health, Runtime
from app.domain.rotation import SecretRotation, in_force
from app.services.collectors import unavailable_collectors
from app.services.destinations import (
    blocked_reasons,
    change_destination,
    create_destination,
    delete_destination,
    get_destination,
    list_destinations,
    pause_destination,
    resume_destination,
    rotate_secret,
    runtimes,
    send_test_event,
)

router = APIRouter(tags=["destinations"])

Status = Literal["active", "failing", "paused", "unavailable", "disabled"]


class ConcurrencyOutput(BaseModel):
    """How many requests may be in flight to a destination.

    ``limit`` and ``reason`` are null before anything was delivered, and up to some seconds old.
    """

    min: int
    max: int
    limit: int | None
    reason: str | None


class HealthOutput(BaseModel):
    """Failures in a row, up to some seconds old; the first success ends them."""

    model_config = ConfigDict(from_attributes=True)

    failing_since: datetime | None
    failures: int
    last_error: str | None


class OldSecretOutput(BaseModel):
    """That a replaced secret still signs, and until when."""

    expires_at: datetime


class DestinationOutput(BaseModel):
    """A destination, without its secret, its credentials and the values of its headers.

    ``blocked_reason`` says why nothing can be sent, such as a missing key; deliveries wait.
    A collector (`kind`) has no `url`. While no worker carries it, its `status` is `unavailable` and
    its deliveries wait.
    """

    id: uuid.UUID
    key: str
    kind: Kind
    url: str | None
    description: str | None
    status: Status
    health: HealthOutput
    enabled: bool
    timeout_seconds: float
    concurrency: ConcurrencyOutput
    max_per_second: float | None
    retry: RetryInput
    queue: QueueKind
    ordered: bool
    batch: BatchInput | None
    body: Body
    topics: list[str]
    categories: list[str]
    min_confidence: float | None
    uncertain: bool
    filter: dict[str, Any] | None
    events: list[str]
    documents: bool
    header_names: list[str]
    auth_type: Literal["basic", "bearer"] | None
    signatures: list[str]
    old_secrets: list[OldSecretOutput]
    blocked_reason: str | None
    parent_id: uuid.UUID | None
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    paused_at: datetime | None


class NewDestinationOutput(DestinationOutput):
    """A destination with a new secret: the only time that it is shown."""

    secret: str


class SentTestOutput(BaseModel):
    """Which delivery carries a test."""

    delivery_id: str


class DestinationPage(BaseModel):
    """Some destinations; ``next_cursor`` is null on the last page."""

    items: list[DestinationOutput]
    next_cursor: uuid.UUID | None


@router.post("/destinations", status_code=201)
def register_destination(
    given: DestinationInput, response: Response, parts: Annotated[Parts, Depends(parts_of)]
) -> NewDestinationOutput:
    """Register a webhook; documents accepted from now on can reach it."""
    destination = create_destination(parts.engine, DEFAULT_TENANT, given, parts.vault)
    response.headers["Location"] = f"/destinations/{destination.id}"
    return NewDestinationOutput.model_validate(_described(parts, [destination])[0])


@router.get("/destinations")
def read_destinations(
    request: Request,
    response: Response,
    parts: Annotated[Parts, Depends(parts_of)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: uuid.UUID | None = None,
    parent_id: Annotated[
        uuid.UUID | None,
        Query(description="Instead those of URLs that a router chose, under this destination."),
    ] = None,
) -> DestinationPage:
    """List the destinations that were registered, the oldest first."""
    page, more = list_destinations(
        parts.engine, DEFAULT_TENANT, limit=limit, after=cursor, parent_id=parent_id
    )
    link_next(request, response, more)
    items = [DestinationOutput.model_validate(one) for one in _described(parts, page)]
    return DestinationPage(items=items, next_cursor=more)


@router.get("/destinations/{destination_id}")
def read_destination(
    destination_id: uuid.UUID, parts: Annotated[Parts, Depends(parts_of)]
) -> DestinationOutput:
    """Return a destination, with the limit of its requests in flight and why it stands there."""
    found = get_destination(parts.engine, DEFAULT_TENANT, destination_id)
    return _output(parts, found)


@router.patch("/destinations/{destination_id}")
def update_destination(
    destination_id: uuid.UUID,
    changes: DestinationChanges,
    parts: Annotated[Parts, Depends(parts_of)],
) -> DestinationOutput:
    """Change the fields that are sent.

    Null clears `batch`, `description`, `max_per_second`, `min_confidence`, `filter`, `headers` and
    `auth`. `headers` are replaced as a whole.
    """
    destination = change_destination(
        parts.engine, DEFAULT_TENANT, destination_id, changes, parts.vault
    )
    return _output(parts, destination)


@router.post("/destinations/{destination_id}/test", status_code=202)
def send_test(
    destination_id: uuid.UUID, response: Response, engine: Annotated[Engine, Depends(engine_of)]
) -> SentTestOutput:
    """Send it a `destination.test`: signed, tried again and recorded like any other delivery.

    What came of it is at `Location`, a moment later.
    """
    sent = send_test_event(engine, DEFAULT_TENANT, destination_id)
    response.headers["Location"] = f"/deliveries/{sent}"
    return SentTestOutput(delivery_id=sent)


@router.post("/destinations/{destination_id}/pause")
def pause(
    destination_id: uuid.UUID, parts: Annotated[Parts, Depends(parts_of)]
) -> DestinationOutput:
    """Send nothing until it is resumed; its deliveries are held, also those to come."""
    paused = pause_destination(parts.engine, DEFAULT_TENANT, destination_id)
    return _output(parts, paused)


@router.post("/destinations/{destination_id}/resume")
def resume(
    destination_id: uuid.UUID, parts: Annotated[Parts, Depends(parts_of)]
) -> DestinationOutput:
    """Send again; what was held becomes due."""
    resumed = resume_destination(parts.engine, DEFAULT_TENANT, destination_id)
    return _output(parts, resumed)


@router.post("/destinations/{destination_id}/rotate-secret")
def rotate_destination_secret(
    destination_id: uuid.UUID,
    parts: Annotated[Parts, Depends(parts_of)],
    given: SecretRotation | None = None,
) -> NewDestinationOutput:
    """Give a destination another secret, and answer with it.

    The one before signs too for `overlap_seconds`, a day by default, so that the receiver can
    change over in between. Behind that only the new one does, however many were replaced before.
    """
    destination = rotate_secret(
        parts.engine, DEFAULT_TENANT, destination_id, given or SecretRotation(), parts.vault
    )
    return NewDestinationOutput.model_validate(_described(parts, [destination])[0])


@router.delete("/destinations/{destination_id}", status_code=204)
def remove_destination(
    destination_id: uuid.UUID, engine: Annotated[Engine, Depends(engine_of)]
) -> None:
    """Delete a destination; what it has open is cancelled."""
    delete_destination(engine, DEFAULT_TENANT, destination_id)


def _output(parts: Parts, destination: Destination) -> DestinationOutput:
    return DestinationOutput.model_validate(_described(parts, [destination])[0])


def _described(parts: Parts, found: Sequence[Destination]) -> list[dict[str, Any]]:
    """Return destinations with what is known of how they do, and of who carries them."""
    known = runtimes(parts.engine, DEFAULT_TENANT, found)
    blocked = blocked_reasons(parts.engine, DEFAULT_TENANT, found)
    at = datetime.now(UTC)
    unavailable = unavailable_collectors(parts.engine, DEFAULT_TENANT, found)
    described = []
    for one in found:
        bounds = one.bounds(parts.settings.delivery_concurrency)
        now = known.get(one.id, Runtime())
        concurrency = ConcurrencyOutput(
            min=bounds.min, max=bounds.max, limit=now.limit, reason=now.reason
        )
        retry = RetryInput(schedule_seconds=one.retry_schedule, max_age_seconds=one.max_age_seconds)
        is_away = one.id in unavailable
        computed = {
            "url": one.url or None,
            "status": _status(one, now.health, is_away=is_away),
            "health": HealthOutput.model_validate(now.health),
            "concurrency": concurrency,
            "retry": retry,
            "old_secrets": in_force(one.old_secrets, at),
            "blocked_reason": blocked.get(one.id),
        }
        described.append(asdict(one) | computed)
    return described


def _status(destination: Destination, health: Health, *, is_away: bool) -> Status:
    if not destination.enabled:
        return "disabled"
    if destination.paused_at is not None:
        return "paused"
    if is_away:
        return "unavailable"
    return "failing" if health.failures else "active"
