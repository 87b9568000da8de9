"""Operational events: written together with their deliveries, and listed.

They go the way of documents: rows in the outbox, signed, tried again, recorded. Two things keep
them from feeding on themselves: no delivery of an event causes ``delivery.exhausted``
(``app.storage.deliveries.record``), and a destination hears nothing about itself.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.domain.delivery_ids import DeliveryPlace, delivery_id
from app.domain.envelopes import webhook_id
from app.domain.identifiers import new_id
from app.domain.operational_events import OperationalEventType, patterns_of, reason_of
from app.storage import tallies
from app.storage.tallies import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationalEvent:
    """What is told.

    Attributes:
        destination_id: whom it is about.
        data: JSON; the destination's id and key are added.
    """

    type: OperationalEventType
    destination_id: uuid.UUID
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event as it is kept."""

    id: uuid.UUID
    type: str
    destination_id: uuid.UUID
    data: dict[str, Any]
    created_at: datetime


def emit(
    connection: Connection,
    tenant_id: int,
    event_type: OperationalEventType,
    destination_id: uuid.UUID,
    data: Mapping[str, Any],
) -> list[uuid.UUID]:
    """Tell one thing; see ``emit_all``."""
    event = OperationalEvent(type=event_type, destination_id=destination_id, data=data)
    return emit_all(connection, tenant_id, [event])


def emit_all(
    connection: Connection, tenant_id: int, events: Sequence[OperationalEvent]
) -> list[uuid.UUID]:
    """Store events and plan their deliveries, within the transaction of what they tell about.

    Nobody need be rung: the sweeper finds who waits within a second.

    Args:
        connection: within a transaction.
        tenant_id: of all that are concerned.
        events: in the order in which they came about.

    Returns:
        The destinations that will get one, should somebody want to ring them.
    """
    if not events:
        return []
    rows = _store(connection, tenant_id, events)
    return _plan(connection, tenant_id, [(event_id, one) for event_id, one, _ in rows])


def emit_test(connection: Connection, tenant_id: int, destination_id: uuid.UUID) -> DeliveryPlace:
    """Store a test event and plan its delivery to the one that it is about; return which."""
    event = OperationalEvent(
        type=OperationalEventType.DESTINATION_TEST,
        destination_id=destination_id,
        data={"message": "Somebody asked Docyard to send this."},
    )
    ((event_id, _, _),) = _store(connection, tenant_id, [event])
    seq = _present_seq()
    _insert(connection, tenant_id, [_row(event_id, seq, destination_id, "a test", event.type)])
    return DeliveryPlace(event_id, seq, destination_id, 0)


def emit_exhausted(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    deliveries: Sequence[Mapping[str, Any]],
) -> None:
    """Tell of deliveries to one destination that have failed for good.

    Args:
        connection: within the transaction that records them.
        tenant_id: whose.
        destination_id: whose.
        deliveries: ``document_id``, ``seq``, ``generation``, ``version``, ``attempts``, ``status``
            and ``error`` of each.
    """
    events = []
    for one in deliveries:
        document_id = uuid.UUID(one["document_id"])
        place = DeliveryPlace(document_id, one["seq"], destination_id, one["generation"])
        data = {
            "delivery_id": delivery_id(place),
            "webhook_id": webhook_id(document_id, place.seq, place.generation),
            **{name: one[name] for name in ("document_id", "version", "attempts", "status")},
            "error": one["error"],
        }
        events.append(
            OperationalEvent(
                type=OperationalEventType.DELIVERY_EXHAUSTED,
                destination_id=destination_id,
                data=data,
            )
        )
    emit_all(connection, tenant_id, events)


def _store(
    connection: Connection, tenant_id: int, events: Sequence[OperationalEvent]
) -> list[tuple[uuid.UUID, OperationalEvent, dict[str, Any]]]:
    keys = _keys(connection, tenant_id, {one.destination_id for one in events})
    rows = [
        (
            new_id(),
            one,
            {"destination_id": one.destination_id, "destination_key": keys.get(one.destination_id)}
            | dict(one.data),
        )
        for one in events
    ]
    connection.execute(
        text(
            "INSERT INTO operational_events (tenant_id, id, type, destination_id, data, created_at)"
            " SELECT :tenant_id, e.id, e.type, e.destination_id, e.data, now()"
            " FROM json_to_recordset(CAST(:events AS json))"
            "  AS e (id uuid, type text, destination_id uuid, data json) ORDER BY e.id"
        ),
        {
            "tenant_id": tenant_id,
            "events": orjson.dumps(
                [
                    {
                        "id": event_id,
                        "type": one.type,
                        "destination_id": one.destination_id,
                        "data": data,
                    }
                    for event_id, one, data in rows
                ]
            ).decode(),
        },
    )
    return rows


def _keys(
    connection: Connection, tenant_id: int, destination_ids: set[uuid.UUID]
) -> dict[uuid.UUID, str]:
    rows = connection.execute(
        text("SELECT id, key FROM destinations WHERE tenant_id = :tenant_id AND id = ANY(:ids)"),
        {"tenant_id": tenant_id, "ids": sorted(destination_ids)},
    )
    return {row.id: row.key for row in rows}


def _plan(
    connection: Connection, tenant_id: int, events: Sequence[tuple[uuid.UUID, OperationalEvent]]
) -> list[uuid.UUID]:
    subscribers = _subscribers(connection, tenant_id)
    seq = _present_seq()
    planned = [
        # A number each, as documents have: holders tell by it what they have read already.
        _row(event_id, seq + place, subscriber, reason_of(event.type, subscribed), event.type)
        for place, (event_id, event) in enumerate(sorted(events, key=lambda one: one[0]))
        for subscriber, subscribed in subscribers
        if subscriber != event.destination_id
        and not set(subscribed).isdisjoint(patterns_of(event.type))
    ]
    return _insert(connection, tenant_id, planned) if planned else []


def _present_seq() -> int:
    # Microseconds, as the order numbers of documents are: both are read in one order.
    return time.time_ns() // 1000


def _row(
    event_id: uuid.UUID, seq: int, destination_id: uuid.UUID, reason: str, event_type: str
) -> dict[str, Any]:
    return {
        "document_id": event_id,
        "seq": seq,
        "destination_id": destination_id,
        "reason": reason,
        "event_type": event_type,
    }


def _insert(
    connection: Connection, tenant_id: int, planned: Sequence[Mapping[str, Any]]
) -> list[uuid.UUID]:
    connection.execute(
        text(
            "INSERT INTO deliveries (tenant_id, document_id, seq, version, destination_id, reason,"
            " event_type, state, due_at, created_at)"
            " SELECT :tenant_id, e.document_id, e.seq, 0, e.destination_id, e.reason, e.event_type,"
            "  'pending', now(), now() FROM json_to_recordset(CAST(:planned AS json)) AS e"
            "  (document_id uuid, seq bigint, destination_id uuid, reason text, event_type text)"
        ),
        {"tenant_id": tenant_id, "planned": orjson.dumps(planned).decode()},
    )
    tally = Counter(Owner(one["destination_id"], None) for one in planned)
    tallies.add(connection, tenant_id, [("planned", tally)])
    return sorted(tallies.per_destination(tally))


def _subscribers(connection: Connection, tenant_id: int) -> list[tuple[uuid.UUID, list[str]]]:
    rows = connection.execute(
        text(
            "SELECT id, events FROM destinations WHERE tenant_id = :tenant_id AND enabled"
            " AND deleted_at IS NULL AND events <> '[]'::jsonb ORDER BY id"
        ),
        {"tenant_id": tenant_id},
    )
    return [(row.id, row.events) for row in rows]


def list_page(
    connection: Connection,
    tenant_id: int,
    *,
    limit: int,
    after: uuid.UUID | None = None,
    event_type: str | None = None,
    destination_id: uuid.UUID | None = None,
) -> list[StoredEvent]:
    """Return events, the newest first, from behind ``after``."""
    rows = connection.execute(
        text(
            "SELECT id, type, destination_id, data, created_at FROM operational_events"
            " WHERE tenant_id = :tenant_id AND (CAST(:after AS uuid) IS NULL OR id < :after)"
            " AND (CAST(:type AS text) IS NULL OR type = :type)"
            " AND (CAST(:destination_id AS uuid) IS NULL OR destination_id = :destination_id)"
            " ORDER BY id DESC LIMIT :limit"
        ),
        {
            "tenant_id": tenant_id,
            "after": after,
            "type": event_type,
            "destination_id": destination_id,
            "limit": limit,
        },
    )
    return [StoredEvent(**row._asdict()) for row in rows]
