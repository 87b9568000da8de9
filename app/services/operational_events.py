"""Reading operational events."""

from __future__ import annotations

import uuid

from sqlalchemy import Engine

from app.domain.operational_events import OperationalEventType
from app.storage import operational_events
from app.storage.engine import transaction
from app.storage.operational_events import StoredEvent


def list_events(
    engine: Engine,
    tenant_id: int,
    *,
    limit: int,
    after: uuid.UUID | None,
    event_type: OperationalEventType | None,
    destination_id: uuid.UUID | None,
) -> tuple[list[StoredEvent], uuid.UUID | None]:
    """Return a page of events, the newest first, and the id to go on from where there are more."""
    with transaction(engine) as connection:
        found = operational_events.list_page(
            connection,
            tenant_id,
            limit=limit + 1,
            after=after,
            event_type=event_type,
            destination_id=destination_id,
        )
    page = found[:limit]
    return page, page[-1].id if len(found) > limit else None
