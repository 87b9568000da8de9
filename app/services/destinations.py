"""Registering, reading and deleting destinations."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from app.domain.delivery_ids import delivery_id
from app.domain.destinations import (
    Destination,
    DestinationChanges,
    DestinationInput,
    changed,
    make_destination,
)
from app.domain.errors import DestinationNotFound
from app.domain.health import Runtime
from app.domain.rotation import SecretRotation, with_replaced
from app.domain.signing import new_secret
from app.domain.vault import Vault
from app.services.sealing import with_credentials, with_sealed_secret
from app.services.webhook_keys import ensure_webhook_key
from app.storage import destinations, health, leases, operational_events
from app.storage.engine import transaction

NO_KEYS = Vault()


def create_destination(
    engine: Engine, tenant_id: int, given: DestinationInput, vault: Vault = NO_KEYS
) -> Destination:
    """Register a destination; every document accepted from now on can reach it.

    Its secret is returned readable, and never again.

    Raises:
        DestinationKeyTaken: another one has this key.
        DestinationUrlRefused: the URL is not one that Docyard will call.
        EncryptionKeyMissing: it has credentials, and there is no key to encrypt them with.
        FilterInvalid: the filter cannot be understood.
        HeadersInvalid: its headers are not what can be sent.
    """
    destination = make_destination(tenant_id, given, now=datetime.now(UTC))
    destination = with_credentials(destination, given, vault)
    with transaction(engine) as connection:
        destinations.create(connection, with_sealed_secret(destination, vault))
        _ensure_keys(connection, destination, vault)
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
    engine: Engine,
    tenant_id: int,
    destination_id: uuid.UUID,
    changes: DestinationChanges,
    vault: Vault = NO_KEYS,
) -> Destination:
    """Change a destination; documents accepted from now on are routed by the new fields.

    Raises:
        DestinationKeyTaken: another one has this key.
        DestinationNotFound: there is none, or it was deleted.
        DestinationUrlRefused: the URL is not one that Docyard will call.
        EncryptionKeyMissing: it gets credentials, and there is no key to encrypt them with.
        FilterInvalid: the filter cannot be understood.
        HeadersInvalid: its headers are not what can be sent.
    """
    with transaction(engine) as connection:
        known = destinations.get(connection, tenant_id, destination_id, lock=True)
        if known is None:
            raise DestinationNotFound(destination_id)
        destination = changed(known, changes, now=datetime.now(UTC))
        destination = with_credentials(destination, changes, vault)
        destinations.update(connection, destination)
        if destination.url != known.url or (destination.enabled and not known.enabled):
            health.forget(connection, tenant_id, destination_id)
        _ensure_keys(connection, destination, vault)
    return destination


def rotate_secret(
    engine: Engine,
    tenant_id: int,
    destination_id: uuid.UUID,
    rotation: SecretRotation,
    vault: Vault = NO_KEYS,
) -> Destination:
    """Give a destination another secret; the one before signs too until the overlap ends.

    The new one is returned readable, and never again.

    Raises:
        DestinationNotFound: there is none, or it was deleted.
        SecretsOverlap: too many secrets are still in force.
    """
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        known = destinations.get(connection, tenant_id, destination_id, lock=True)
        if known is None:
            raise DestinationNotFound(destination_id)
        destination = replace(
            known,
            secret=rotation.secret or new_secret(),
            old_secrets=with_replaced(
                known.old_secrets, known.secret, rotation.overlap_seconds, now
            ),
            updated_at=now,
        )
        destinations.update(connection, with_sealed_secret(destination, vault))
    return destination


def _ensure_keys(connection: Connection, destination: Destination, vault: Vault) -> None:
    if "v1a" in destination.signatures:
        ensure_webhook_key(connection, destination.tenant_id, vault)


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


def blocked_reasons(
    engine: Engine, tenant_id: int, found: Sequence[Destination]
) -> dict[uuid.UUID, str]:
    """Return why nothing can be sent to a destination, for those to which it cannot."""
    with transaction(engine) as connection:
        return leases.blocked_reasons(connection, tenant_id, [one.id for one in found])


def send_test_event(engine: Engine, tenant_id: int, destination_id: uuid.UUID) -> str:
    """Send a destination a ``destination.test``, as any delivery; return the delivery's id.

    Raises:
        DestinationNotFound: there is none, or it was deleted.
    """
    with transaction(engine) as connection:
        if destinations.get(connection, tenant_id, destination_id) is None:
            raise DestinationNotFound(destination_id)
        return delivery_id(operational_events.emit_test(connection, tenant_id, destination_id))


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
