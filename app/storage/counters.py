"""Counters as insert-only deltas, folded by a tick: writers never wait for a hot row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

NO_DESTINATION = uuid.UUID(int=0)


class Delta(NamedTuple):
    """An addition to a counter, for a destination where that is meant."""

    name: str
    amount: int
    destination_id: uuid.UUID | None = None


def add(connection: Connection, tenant_id: int, deltas: Sequence[Delta]) -> None:
    """Record additions; zeros are left out."""
    kept = [delta for delta in deltas if delta.amount]
    if not kept:
        return
    connection.execute(
        text(
            "INSERT INTO counter_deltas (tenant_id, name, amount, destination_id)"
            " SELECT :tenant_id, * FROM unnest(CAST(:names AS text[]), CAST(:amounts AS bigint[]),"
            " CAST(:destinations AS uuid[]))"
        ),
        {
            "tenant_id": tenant_id,
            "names": [delta.name for delta in kept],
            "amounts": [delta.amount for delta in kept],
            "destinations": [delta.destination_id for delta in kept],
        },
    )


def fold(connection: Connection, tenant_id: int, *, limit: int = 50_000) -> int:
    """Move deltas into the hourly counters; return how many were moved.

    Deltas that another fold holds are skipped, so two at a time are harmless.
    """
    moved: int = connection.execute(
        text(
            "WITH picked AS (SELECT tenant_id, id FROM counter_deltas"
            "  WHERE tenant_id = :tenant_id ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),"
            " moved AS (DELETE FROM counter_deltas d USING picked p"
            "  WHERE d.tenant_id = p.tenant_id AND d.id = p.id RETURNING d.*),"
            " sums AS (SELECT tenant_id, name, COALESCE(destination_id, :nobody) AS destination_id,"
            "  date_trunc('hour', at, 'UTC') AS hour, sum(amount) AS amount FROM moved"
            "  GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4),"
            " folded AS (INSERT INTO counters AS c (tenant_id, name, destination_id, hour, amount)"
            "  SELECT * FROM sums ON CONFLICT (tenant_id, name, destination_id, hour)"
            "  DO UPDATE SET amount = c.amount + EXCLUDED.amount)"
            " SELECT count(*) FROM moved"
        ),
        {"tenant_id": tenant_id, "limit": limit, "nobody": NO_DESTINATION},
    ).scalar_one()
    return moved


def totals(connection: Connection, tenant_id: int) -> dict[str, int]:
    """Return every counter's sum over all time and destinations, folded or not."""
    rows = connection.execute(
        text(
            "SELECT name, sum(amount)::bigint AS amount FROM ("
            " SELECT name, amount FROM counters WHERE tenant_id = :tenant_id"
            " UNION ALL SELECT name, amount FROM counter_deltas WHERE tenant_id = :tenant_id) c"
            " GROUP BY name"
        ),
        {"tenant_id": tenant_id},
    )
    return {row.name: row.amount for row in rows}
