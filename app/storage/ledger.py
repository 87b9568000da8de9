"""The ledger's sums, from the hourly counters, and the counts of rows that they are held against.

Everything here reads one snapshot (``app.storage.engine.snapshot``). A counter is written in the
transaction that writes what it counts, so within a snapshot both agree to the row, however busy the
system is.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

from app.storage.counters import NO_DESTINATION

ENDS = ("delivered", "failed", "superseded", "cancelled")


@dataclass(slots=True)
class Sums:
    """What was counted before a range and within it, by name and destination."""

    before: defaultdict[tuple[str, uuid.UUID], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    within: defaultdict[tuple[str, uuid.UUID], int] = field(
        default_factory=lambda: defaultdict(int)
    )

    def total(self, name: str, destination_id: uuid.UUID = NO_DESTINATION) -> int:
        """Return a counter from the beginning to the end of the range."""
        key = name, destination_id
        return self.before[key] + self.within[key]

    def removed(self, destination_id: uuid.UUID) -> int:
        """Return how many deliveries were removed, whatever the state that they were in."""
        kept = {name for name, _ in (*self.before, *self.within)}
        names = [name for name in kept if name.startswith("deliveries.removed")]
        return sum(self.total(name, destination_id) for name in names)

    def destinations(self) -> list[uuid.UUID]:
        """Return every destination that anything was planned for."""
        keys = {*self.before, *self.within}
        return sorted({one for name, one in keys if name == "deliveries.planned"})


def sums(
    connection: Connection,
    tenant_id: int,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Sums:
    """Add the counters up, folded or not.

    Args:
        connection: a snapshot.
        tenant_id: whose.
        since: the beginning of the range, a whole hour; None for the very beginning.
        until: its end, a whole hour; None for now.
    """
    rows = connection.execute(
        text(
            "SELECT name, destination_id, sum(amount) FILTER (WHERE NOT within)::bigint AS before,"
            " sum(amount) FILTER (WHERE within)::bigint AS within FROM ("
            " SELECT name, destination_id, amount,"
            "  COALESCE(hour >= CAST(:since AS timestamptz), true) AS within"
            "  FROM counters WHERE tenant_id = :tenant_id"
            "  AND COALESCE(hour < CAST(:until AS timestamptz), true)"
            " UNION ALL SELECT name, COALESCE(destination_id, :nobody), amount,"
            "  COALESCE(at >= CAST(:since AS timestamptz), true)"
            "  FROM counter_deltas WHERE tenant_id = :tenant_id"
            "  AND COALESCE(at < CAST(:until AS timestamptz), true)) c GROUP BY 1, 2"
        ),
        {"tenant_id": tenant_id, "since": since, "until": until, "nobody": NO_DESTINATION},
    )
    found = Sums()
    for row in rows:
        found.before[row.name, row.destination_id] = row.before or 0
        found.within[row.name, row.destination_id] = row.within or 0
    return found


def documents(connection: Connection, tenant_id: int) -> int:
    """Count the stored documents: their key's index alone is read."""
    return _count(connection, tenant_id, "documents")


def rejected(connection: Connection, tenant_id: int) -> int:
    """Count what is set aside."""
    return _count(connection, tenant_id, "rejected_documents")


def dead_letters(connection: Connection, tenant_id: int) -> tuple[int, int]:
    """Count the dead letters, and the documents that they carry."""
    row = connection.execute(
        text(
            "SELECT count(*), COALESCE(sum(documents), 0)::bigint FROM dead_letters"
            " WHERE tenant_id = :tenant_id"
        ),
        {"tenant_id": tenant_id},
    ).one()
    return row[0], row[1]


def all_deliveries(connection: Connection, tenant_id: int) -> int:
    """Count the deliveries to all destinations together: half the work of telling them apart."""
    return _count(connection, tenant_id, "deliveries")


def deliveries(connection: Connection, tenant_id: int) -> dict[uuid.UUID, int]:
    """Count the deliveries of each destination, from the index over all of them."""
    return _per_destination(connection, tenant_id, "true")


def open_deliveries(connection: Connection, tenant_id: int) -> dict[uuid.UUID, int]:
    """Count the open deliveries of each destination, from the index of what is undelivered."""
    return _per_destination(connection, tenant_id, "state IN ('pending', 'held')")


def failed_deliveries(connection: Connection, tenant_id: int) -> dict[uuid.UUID, int]:
    """Count the failed deliveries of each destination, from the same index."""
    return _per_destination(connection, tenant_id, "state = 'failed'")


def keys_of(connection: Connection, tenant_id: int) -> dict[uuid.UUID, str]:
    """Return the keys of all destinations, also of those that were deleted."""
    rows = connection.execute(
        text("SELECT id, key FROM destinations WHERE tenant_id = :tenant_id"),
        {"tenant_id": tenant_id},
    )
    return {row.id: row.key for row in rows}


def _count(connection: Connection, tenant_id: int, table: str) -> int:
    statement = text(f"SELECT count(*) FROM {table} WHERE tenant_id = :tenant_id")  # noqa: S608  (a table of ours)
    return int(connection.execute(statement, {"tenant_id": tenant_id}).scalar_one())


def _per_destination(
    connection: Connection, tenant_id: int, condition: str
) -> dict[uuid.UUID, int]:
    rows = connection.execute(
        text(
            "SELECT destination_id, count(*) AS number FROM deliveries"  # noqa: S608  (constants only)
            f" WHERE tenant_id = :tenant_id AND {condition} GROUP BY destination_id"
        ),
        {"tenant_id": tenant_id},
    )
    return {row.destination_id: row.number for row in rows}
