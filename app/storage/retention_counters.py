"""Counters never go: behind their limit, those of a day's hours become one. Every sum stays."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, time

from sqlalchemy import Connection, text

from app.storage.retention_walks import Cursor, Piece

GROUPS = 20
HOURS = 2_000

# One index look-up each: there are few names and destinations, and many hours of each.
_NEXT = text(
    "SELECT name, destination_id FROM counters WHERE tenant_id = :tenant_id"
    " AND (name, destination_id) > (CAST(:name AS text), CAST(:destination AS uuid))"
    " ORDER BY name, destination_id LIMIT 1"
)
_GATHER = text(
    "WITH old AS (SELECT hour FROM counters WHERE tenant_id = :tenant_id AND name = :name"
    "  AND destination_id = :destination AND hour < :midnight"
    "  AND hour <> date_trunc('day', hour, 'UTC') ORDER BY hour LIMIT :limit FOR UPDATE),"
    " gone AS (DELETE FROM counters c USING old WHERE c.tenant_id = :tenant_id"
    "  AND c.name = :name AND c.destination_id = :destination AND c.hour = old.hour"
    "  RETURNING c.hour, c.amount),"
    " days AS (INSERT INTO counters AS c (tenant_id, name, destination_id, hour, amount)"
    "  SELECT :tenant_id, :name, CAST(:destination AS uuid), date_trunc('day', hour, 'UTC'),"
    "   sum(amount) FROM gone GROUP BY 4 ORDER BY 4"
    "  ON CONFLICT (tenant_id, name, destination_id, hour)"
    "  DO UPDATE SET amount = c.amount + EXCLUDED.amount)"
    " SELECT count(*) FROM gone"
)


def gather_days(
    connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Add the hours of days before a time up into those days, which stand at their first hour.

    Returns:
        How many rows were added up.
    """
    name, destination = cursor or ("", str(uuid.UUID(int=0)))
    midnight = datetime.combine(cutoff.astimezone(UTC).date(), time(), UTC)
    gathered = 0
    for _ in range(GROUPS):
        following = connection.execute(
            _NEXT, {"tenant_id": tenant_id, "name": name, "destination": destination}
        ).one_or_none()
        if following is None:
            return Piece(gathered, None)
        rows: int = connection.execute(
            _GATHER,
            {
                "tenant_id": tenant_id,
                "name": following.name,
                "destination": following.destination_id,
                "midnight": midnight,
                "limit": HOURS,
            },
        ).scalar_one()
        gathered += rows
        if rows == HOURS:
            break
        name, destination = following.name, str(following.destination_id)
    return Piece(gathered, [name, destination])
