"""Registering collectors as destinations, and telling which of them are carried by a worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from app.domain.collectors import CollectorSpec, destination_of, with_declared
from app.domain.destinations import Destination
from app.domain.errors import DestinationKeyTaken, SettingsInvalid
from app.storage import carriers, destinations
from app.storage.engine import transaction


def register_collectors(
    engine: Engine, tenant_id: int, specs: Iterable[CollectorSpec]
) -> dict[str, uuid.UUID]:
    """Make a destination of each collector, or bring its destination up to date; return their ids.

    Raises:
        DatabaseUnavailable: nothing was registered.
        SettingsInvalid: a webhook destination has the key of one.
    """
    ordered = sorted(specs, key=lambda one: one.key)
    try:
        with transaction(engine) as connection:
            return {one.key: _register(connection, tenant_id, one) for one in ordered}
    except DestinationKeyTaken:
        # Another worker starts at the same moment, and was quicker.
        with transaction(engine) as connection:
            return {one.key: _register(connection, tenant_id, one) for one in ordered}


def _register(connection: Connection, tenant_id: int, spec: CollectorSpec) -> uuid.UUID:
    known = destinations.get_by_key(connection, tenant_id, spec.key)
    now = datetime.now(UTC)
    if known is None:
        made = destination_of(tenant_id, spec, now=now)
        destinations.create(connection, made)
        return made.id
    if known.kind != "collector":
        sentence = (
            f"The collector {spec.key!r} cannot be registered: a webhook destination has this key."
            " Delete or rename one of them."
        )
        raise SettingsInvalid(sentence)
    declared = with_declared(known, spec)
    if declared != known:
        destinations.update(connection, with_declared(known, spec, updated_at=now))
    return known.id


def unavailable_collectors(
    engine: Engine, tenant_id: int, found: Sequence[Destination]
) -> set[uuid.UUID]:
    """Return the ids of collectors that no worker carries now; their deliveries wait."""
    collectors = {one.id for one in found if one.kind == "collector"}
    if not collectors:
        return set()
    with transaction(engine) as connection:
        return collectors - carriers.carried(connection, tenant_id, sorted(collectors))
