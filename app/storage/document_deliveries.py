"""The deliveries of one document, to be shown: every version, the newest first."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class DeliveryPlace(NamedTuple):
    """Where a page of a document's deliveries ends."""

    seq: int
    destination_id: uuid.UUID
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDelivery:
    """One route of a document's version, and what has become of it.

    Attributes:
        destination_key: also of a destination that was deleted; ``destination_url`` likewise.
        seq: order number of the version.
        reason: why the destination gets it.
        due_at: of the next attempt, while the delivery is open.
        result: what a collector returned.
    """

    destination_id: uuid.UUID
    destination_key: str | None
    destination_url: str | None
    version: int
    seq: int
    generation: int
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

    @property
    def place(self) -> DeliveryPlace:
        """Where a page ends that ends with this one."""
        return DeliveryPlace(self.seq, self.destination_id, self.generation)


_PAGE = text(
    "SELECT d.destination_id, s.key AS destination_key,"
    " NULLIF(s.url, '') AS destination_url, d.version, d.seq, d.generation, d.reason,"
    " d.state, d.attempts, d.last_status, d.last_error, d.created_at,"
    " CASE WHEN d.ended_at IS NULL THEN d.due_at END AS due_at, d.attempted_at, d.ended_at,"
    " v.value AS result"
    " FROM (SELECT * FROM deliveries WHERE tenant_id = :tenant_id AND document_id = :document_id"
    "  AND (CAST(:seq AS bigint) IS NULL OR (seq, destination_id, generation)"
    "   < (:seq, CAST(:destination_id AS uuid), CAST(:generation AS smallint)))"
    "  ORDER BY seq DESC, destination_id DESC, generation DESC LIMIT :limit) d"
    " LEFT JOIN destinations s ON s.tenant_id = :tenant_id AND s.id = d.destination_id"
    " LEFT JOIN delivery_results v ON v.tenant_id = :tenant_id AND v.document_id = d.document_id"
    "  AND v.seq = d.seq AND v.destination_id = d.destination_id AND v.generation = d.generation"
    " ORDER BY d.seq DESC, d.destination_id DESC, d.generation DESC"
)


def list_page(
    connection: Connection,
    tenant_id: int,
    document_id: uuid.UUID,
    *,
    limit: int,
    after: DeliveryPlace | None = None,
) -> list[DocumentDelivery]:
    """Return deliveries of a document, those of the newest version first."""
    rows = connection.execute(
        _PAGE,
        {
            "tenant_id": tenant_id,
            "document_id": document_id,
            "limit": limit,
            "seq": after.seq if after else None,
            "destination_id": after.destination_id if after else None,
            "generation": after.generation if after else None,
        },
    )
    return [DocumentDelivery(**row._asdict()) for row in rows]


def count_of_version(
    connection: Connection, tenant_id: int, document_id: uuid.UUID, seq: int
) -> int:
    """Return how many routes one version of a document has."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM deliveries WHERE tenant_id = :tenant_id"
                " AND document_id = :document_id AND seq = :seq"
            ),
            {"tenant_id": tenant_id, "document_id": document_id, "seq": seq},
        ).scalar_one()
    )
