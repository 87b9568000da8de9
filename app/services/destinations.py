"""Registering, reading and deleting destinations."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from app.domain.destinations import (
    Destination,
    DestinationChanges,
    DestinationInput,
    changed,
    make_destination,
)
from app.domain.errors import DestinationNotFound
from app.domain.health import Runtime
from app.storage import destinations, health, leases
from app.storage.engine import transaction


def create_destination(engine: Engine, tenant_id: int, given: DestinationInput) -> Destination:
    """Register a destination; every document accepted from now on can reach it.

    Raises:
        DestinationKeyTaken: another one has this key.
        DestinationUrlRefused: the URL is not one that Docyard will call.
        FilterInvalid: the filter cannot be understood.
    """
    destination = make_destination(tenant_id, given, now=datetime.now(UTC))
    with transaction(engine) as connection:
        destinations.create(connection, destination)
    return destination


def get_destination(engine: Engine, tenant_id: int, destination_id: uuid.UUID) -> Destination:
    """Return a destination.

    Raises:
        DestinationNotFound: there is none, or it was deleted.
    """
    with transaction(engine) as connection:
        destination = destinations.get(connection, tenant_id, destination_id)
    if destination is None:
        raise DestinationNotFound(destination_id)
    return destination


def change_destination(
    engine: Engine, tenant_id: int, destination_id: uuid.UUID, changes: DestinationChanges
) -> Destination:
    """Change a destination; documents accepted from now on are routed by the new fields.

    Raises:
        DestinationKeyTaken: another one has this key.
        DestinationNotFound: there is none, or it was deleted.
        DestinationUrlRefused: the URL is not one that Docyard will call.
        FilterInvalid: the filter cannot be understood.
    """
    with transaction(engine) as connection:
        known = destinations.get(connection, tenant_id, destination_id, lock=True)
        if known is None:
            raise DestinationNotFound(destination_id)
        destination = changed(known, changes, now=datetime.now(UTC))
        destinations.update(connection, destination)
        if destination.url != known.url or (destination.enabled and not known.enabled):
            health.forget(connection, tenant_id, destination_id)
    return destination


def list_destinations(
    engine: Engine,
    tenant_id: int,
    *,
    limit: int,
    after: uuid.UUID | None,
    parent_id: uuid.UUID | None = None,
) -> tuple[list[Destination], uuid.UUID | None]:
    """Return a page of destinations, and the id to go on from where there are more."""
    with transaction(engine) as connection:
        found = destinations.list_page(
            connection, tenant_id, limit=limit + 1, after=after, parent_id=parent_id
        )
    page = found[:limit]
    return page, page[-1].id if len(found) > limit else None


def runtimes(
    engine: Engine, tenant_id: int, found: Sequence[Destination]
) -> dict[uuid.UUID, Runtime]:
    """Return how destinations do, those that were ever delivered to."""
    with transaction(engine) as connection:
        return leases.runtimes(connection, tenant_id, [one.id for one in found])


def pause_destination(engine: Engine, tenant_id: int, destination_id: uuid.UUID) -> Destination:
    """Send nothing to a destination; its deliveries, also those to come, are held.

    Requests in flight end. Pausing what is paused changes nothing.

    Raises:
        DestinationNotFound: there is none, or it was deleted.
    """
    return _set_paused(engine, tenant_id, destination_id, paused=True)


def resume_destination(engine: Engine, tenant_id: int, destination_id: uuid.UUID) -> Destination:
    """Send again; what was held becomes due, within a few seconds.

    Raises:
        DestinationNotFound: there is none, or it was deleted.
    """
    return _set_paused(engine, tenant_id, destination_id, paused=False)


def _set_paused(
    engine: Engine, tenant_id: int, destination_id: uuid.UUID, *, paused: bool
) -> Destination:
    with transaction(engine) as connection:
        known = destinations.get(connection, tenant_id, destination_id, lock=True)
        if known is None:
            raise DestinationNotFound(destination_id)
        if (known.paused_at is not None) == paused:
            return known
        now = datetime.now(UTC)
        destination = replace(known, paused_at=now if paused else None, updated_at=now)
        destinations.update(connection, destination)
        if not paused:
            health.forget(connection, tenant_id, destination_id)
    return destination


def delete_destination(engine: Engine, tenant_id: int, destination_id: uuid.UUID) -> None:
    """Delete a destination; what it has open is cancelled.

    Raises:
        DestinationNotFound: nothing was deleted.
    """
    with transaction(engine) as connection:
        deleted = destinations.soft_delete(connection, tenant_id, destination_id)
    if not deleted:
        raise DestinationNotFound(destination_id)
