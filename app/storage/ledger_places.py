"""Where something is missing: asked only once a count says that something is.

Each returns at most ``limit`` places. They read more than the counts do, within the bound that a
snapshot sets to its statements.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.domain.delivery_ids import DeliveryPlace

LIMIT = 20
OPEN_LOOKED_AT = 5_000
"""Open deliveries whose documents are looked at, the oldest."""
CANCEL_SECONDS = 60
"""How long the open deliveries of a deleted destination may take to be cancelled."""
ROUTE_SECONDS = 900
"""How long a document may be overdue to be routed."""


class MissingDocument(NamedTuple):
    """A document that deliveries were planned for, and that is neither there nor deleted."""

    document_id: uuid.UUID
    seq: int


class HourCount(NamedTuple):
    """Deliveries planned in an hour, and those that are there."""

    hour: datetime
    planned: int
    rows: int


class Suspect(NamedTuple):
    """A document whose newest version has no delivery to a destination."""

    document_id: uuid.UUID
    seq: int


class Chunk(NamedTuple):
    """A chunk of which fewer documents are set aside than were."""

    chunk_id: uuid.UUID
    rejected: int
    rows: int


def missing_documents(
    connection: Connection, tenant_id: int, *, first_seq: int = 0, limit: int = LIMIT
) -> list[MissingDocument]:
    """Return documents that deliveries lead to and that are not there, nor deleted.

    Both keys begin with the document, so their indexes are merged; no row is looked at.
    """
    rows = connection.execute(
        text(
            "SELECT d.document_id, max(d.seq) AS seq FROM deliveries d"
            " LEFT JOIN documents o ON o.tenant_id = d.tenant_id AND o.id = d.document_id"
            " LEFT JOIN tombstones t ON t.tenant_id = d.tenant_id AND t.document_id = d.document_id"
            " LEFT JOIN operational_events e ON e.tenant_id = d.tenant_id AND e.id = d.document_id"
            " WHERE d.tenant_id = :tenant_id AND d.seq >= :first_seq AND d.event_type IS NULL"
            " AND o.id IS NULL AND t.document_id IS NULL AND e.id IS NULL"
            " GROUP BY 1 ORDER BY 2 DESC LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "first_seq": first_seq, "limit": limit},
    )
    return [MissingDocument(*row) for row in rows]


def attempts_without_delivery(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    *,
    since: datetime | None = None,
    limit: int = LIMIT,
) -> list[DeliveryPlace]:
    """Return deliveries that were attempted and are not there."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT a.document_id, a.seq, a.destination_id, a.generation FROM attempts a"
            " LEFT JOIN deliveries d ON d.tenant_id = a.tenant_id AND d.document_id = a.document_id"
            "  AND d.seq = a.seq AND d.destination_id = a.destination_id"
            "  AND d.generation = a.generation"
            " WHERE a.tenant_id = :tenant_id AND a.destination_id = :destination_id"
            " AND (CAST(:since AS timestamptz) IS NULL OR a.started_at >= :since)"
            " AND d.document_id IS NULL LIMIT :limit"
        ),
        {
            "tenant_id": tenant_id,
            "destination_id": destination_id,
            "since": since,
            "limit": limit,
        },
    )
    return [DeliveryPlace(*row) for row in rows]


def hours_that_differ(
    connection: Connection, tenant_id: int, destination_id: uuid.UUID, *, limit: int = LIMIT
) -> list[HourCount]:
    """Return the hours in which more deliveries were planned than are there, the last first.

    A delivery has the time of its transaction, and so has the counter.
    """
    rows = connection.execute(
        text(
            "SELECT hour, sum(planned)::bigint AS planned, sum(rows)::bigint AS rows FROM ("
            " SELECT hour, amount AS planned, 0 AS rows FROM counters"
            "  WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            "  AND name = 'deliveries.planned'"
            " UNION ALL SELECT date_trunc('hour', at, 'UTC'), amount, 0 FROM counter_deltas"
            "  WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            "  AND name = 'deliveries.planned'"
            " UNION ALL SELECT date_trunc('hour', created_at, 'UTC'), 0, 1 FROM deliveries"
            "  WHERE tenant_id = :tenant_id AND destination_id = :destination_id) c"
            " GROUP BY 1 HAVING sum(planned) > sum(rows) ORDER BY 1 DESC LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "destination_id": destination_id, "limit": limit},
    )
    return [HourCount(*row) for row in rows]


def documents_without_delivery(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    hour: datetime,
    *,
    limit: int = LIMIT,
) -> list[Suspect]:
    """Return documents of about an hour that have routes, but none to a destination.

    Where a destination takes all that others take, these are the ones; else they are suspects.
    A document whose only route is missing has none at all; those come first.
    """
    rows = connection.execute(
        text(
            "SELECT o.id, o.seq FROM documents o WHERE o.tenant_id = :tenant_id"
            " AND o.updated_at >= CAST(:hour AS timestamptz) - interval '1 hour'"
            " AND o.updated_at < CAST(:hour AS timestamptz) + interval '1 hour'"
            " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id = o.tenant_id"
            "  AND d.document_id = o.id AND d.seq = o.seq AND d.destination_id = :destination_id)"
            " AND NOT EXISTS (SELECT 1 FROM unplanned_documents u WHERE u.tenant_id = o.tenant_id"
            "  AND u.document_id = o.id)"
            " ORDER BY o.seq DESC LIMIT :limit"
        ),
        {
            "tenant_id": tenant_id,
            "destination_id": destination_id,
            "hour": hour,
            "limit": limit,
        },
    )
    return [Suspect(*row) for row in rows]


def chunks_with_fewer_rejected(
    connection: Connection, tenant_id: int, *, limit: int = LIMIT
) -> list[Chunk]:
    """Return chunks of which fewer documents are set aside than were, the last first.

    Those whose documents were dropped or retried are among them.
    """
    rows = connection.execute(
        text(
            "SELECT r.chunk_id, r.rejected, count(d.seq) AS rows FROM receipts r"
            " LEFT JOIN rejected_documents d ON d.tenant_id = r.tenant_id"
            "  AND d.chunk_id = r.chunk_id"
            " WHERE r.tenant_id = :tenant_id AND r.rejected > 0"
            " GROUP BY 1, 2 HAVING count(d.seq) < r.rejected ORDER BY 1 DESC LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "limit": limit},
    )
    return [Chunk(*row) for row in rows]


def open_in_vain(
    connection: Connection, tenant_id: int, *, first_seq: int = 0, limit: int = LIMIT
) -> list[tuple[DeliveryPlace, int | None]]:
    """Return open deliveries whose document is not there, or stored in another version.

    With each the order number that is stored. The oldest open ones are looked at, so many at most.
    """
    rows = connection.execute(
        text(
            "SELECT d.document_id, d.seq, d.destination_id, d.generation, o.seq AS stored FROM ("
            " (SELECT * FROM deliveries WHERE tenant_id = :tenant_id AND state = 'pending'"
            "  AND seq >= :first_seq ORDER BY seq LIMIT :most) UNION ALL"
            " (SELECT * FROM deliveries WHERE tenant_id = :tenant_id AND state = 'held'"
            "  AND seq >= :first_seq ORDER BY seq LIMIT :most)) d"
            " LEFT JOIN LATERAL (SELECT o.seq FROM documents o WHERE o.tenant_id = d.tenant_id"
            "  AND o.id = d.document_id LIMIT 1) o ON true"
            " WHERE d.event_type IS NULL AND o.seq IS DISTINCT FROM d.seq LIMIT :limit"
        ),
        {
            "tenant_id": tenant_id,
            "first_seq": first_seq,
            "most": OPEN_LOOKED_AT,
            "limit": limit,
        },
    )
    return [(DeliveryPlace(*row[:4]), row.stored) for row in rows]


def open_of_deleted(connection: Connection, tenant_id: int) -> list[uuid.UUID]:
    """Return destinations deleted a while ago that still have open deliveries."""
    probes = " OR ".join(
        "EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id = s.tenant_id"  # noqa: S608  (constants only)
        f" AND d.destination_id = s.id AND {condition} LIMIT 1)"
        for condition in (
            "d.state = 'pending' AND d.attempts = 0",
            "d.state = 'pending' AND d.attempts > 0",
            "d.state = 'held'",
        )
    )
    rows = connection.execute(
        text(
            "SELECT s.id FROM destinations s WHERE s.tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" AND s.deleted_at < now() - make_interval(secs => :seconds) AND ({probes})"
            " ORDER BY s.id"
        ),
        {"tenant_id": tenant_id, "seconds": CANCEL_SECONDS},
    )
    return [row.id for row in rows]


def unrouted(connection: Connection, tenant_id: int, *, limit: int = LIMIT) -> list[uuid.UUID]:
    """Return documents that should have been routed a while ago, whether or not that failed."""
    rows = connection.execute(
        text(
            "SELECT document_id FROM unplanned_documents WHERE tenant_id = :tenant_id"
            " AND retry_at < now() - make_interval(secs => :seconds) ORDER BY retry_at LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "seconds": ROUTE_SECONDS, "limit": limit},
    )
    return [row.document_id for row in rows]
