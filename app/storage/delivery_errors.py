"""What goes wrong, in groups: by destination, status and error."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

MOST_READ = 100_000
"""Of what failed, and of what is tried again: the newest, and those that are due first."""
MOST_GROUPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Deliveries that fail in the same way.

    Attributes:
        status: of the answer; None where there was none.
        error: of answers the status line, else the whole sentence.
        failed: ended so.
        retrying: to be tried again.
        last_error: of the last one, in full.
    """

    destination_id: uuid.UUID
    destination_key: str | None
    status: int | None
    error: str
    failed: int
    retrying: int
    last_at: datetime
    last_error: str


class ErrorGroups(NamedTuple):
    """Groups, the largest first; ``complete`` is False where there was more than is read."""

    items: list[ErrorGroup]
    complete: bool


# Bodies differ from answer to answer, so an answer goes by its status line. Retries are looked up
# destination by destination: the index of the undelivered has all those never tried among them.
_GROUPS = text(
    "WITH failed AS (SELECT destination_id, state, last_status, last_error, attempted_at"
    "  FROM deliveries WHERE tenant_id = :tenant_id AND state = 'failed'"
    "  AND (CAST(:destination_id AS uuid) IS NULL OR destination_id = :destination_id)"
    "  AND seq >= :first_seq ORDER BY seq DESC LIMIT :most),"
    " retrying AS (SELECT d.* FROM destinations s CROSS JOIN LATERAL ("
    "   SELECT destination_id, state, last_status, last_error, attempted_at FROM deliveries"
    "   WHERE tenant_id = :tenant_id AND destination_id = s.id AND state = 'pending'"
    "   AND attempts > 0 AND seq >= :first_seq ORDER BY due_at LIMIT :most) d"
    "  WHERE s.tenant_id = :tenant_id AND s.deleted_at IS NULL"
    "  AND (CAST(:destination_id AS uuid) IS NULL OR s.id = :destination_id) LIMIT :most),"
    " read AS (SELECT * FROM failed UNION ALL SELECT * FROM retrying),"
    " groups AS (SELECT destination_id, last_status AS status,"
    "  CASE WHEN last_status IS NULL THEN last_error ELSE split_part(last_error, ': ', 1) END"
    "   AS error, count(*) FILTER (WHERE state = 'failed') AS failed,"
    "  count(*) FILTER (WHERE state = 'pending') AS retrying, max(attempted_at) AS last_at,"
    "  (array_agg(last_error ORDER BY attempted_at DESC))[1] AS last_error"
    "  FROM read WHERE last_error IS NOT NULL AND attempted_at IS NOT NULL GROUP BY 1, 2, 3)"
    " SELECT g.*, s.key AS destination_key,"
    "  (SELECT count(*) FROM failed) < :most AND (SELECT count(*) FROM retrying) < :most"
    "   AS complete"
    " FROM groups g LEFT JOIN destinations s ON s.tenant_id = :tenant_id"
    "  AND s.id = g.destination_id"
    " ORDER BY g.failed + g.retrying DESC, g.last_at DESC LIMIT :groups"
)


def groups(
    connection: Connection,
    tenant_id: int,
    *,
    destination_id: uuid.UUID | None = None,
    first_seq: int = 0,
    most: int = MOST_READ,
) -> ErrorGroups:
    """Return the errors of failed deliveries and of those that are tried again.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        destination_id: only this one's.
        first_seq: only of versions accepted from here on.
        most: of either kind that are looked at.
    """
    rows = connection.execute(
        _GROUPS,
        {
            "tenant_id": tenant_id,
            "destination_id": destination_id,
            "first_seq": first_seq,
            "most": most,
            "groups": MOST_GROUPS,
        },
    ).all()
    items = []
    for row in rows:
        fields = row._asdict()
        del fields["complete"]
        items.append(ErrorGroup(**fields))
    return ErrorGroups(items, all(row.complete for row in rows))
