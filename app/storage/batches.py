"""What became of a batch: insert-only deltas, folded by a tick, as the counters are.

A batch has no row of its own. What was accepted is counted in Redis with the append, because the
intake does not wait for Postgres; what became of it is counted here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

STORED, STALE, REJECTED = "stored", "stale", "rejected"
PLANNED = "planned"


class BatchDelta(NamedTuple):
    """An addition to one of a batch's counts."""

    batch_id: uuid.UUID
    name: str
    amount: int


def add(connection: Connection, tenant_id: int, deltas: Iterable[BatchDelta]) -> None:
    """Record additions; zeros are left out."""
    kept = [delta for delta in deltas if delta.amount]
    if not kept:
        return
    connection.execute(
        text(
            "INSERT INTO batch_deltas (tenant_id, batch_id, name, amount)"
            " SELECT :tenant_id, * FROM unnest(CAST(:batches AS uuid[]), CAST(:names AS text[]),"
            " CAST(:amounts AS bigint[]))"
        ),
        {
            "tenant_id": tenant_id,
            "batches": [delta.batch_id for delta in kept],
            "names": [delta.name for delta in kept],
            "amounts": [delta.amount for delta in kept],
        },
    )


def fold(connection: Connection, tenant_id: int, *, limit: int = 50_000) -> list[uuid.UUID]:
    """Add deltas up; return the batches they belong to.

    Deltas that another fold holds are skipped, so two at a time are harmless.
    """
    rows = connection.execute(
        text(
            "WITH picked AS (SELECT tenant_id, id FROM batch_deltas"
            "  WHERE tenant_id = :tenant_id ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),"
            " moved AS (DELETE FROM batch_deltas d USING picked p"
            "  WHERE d.tenant_id = p.tenant_id AND d.id = p.id RETURNING d.*),"
            " sums AS (SELECT tenant_id, batch_id, name, sum(amount) AS amount FROM moved"
            "  GROUP BY 1, 2, 3 ORDER BY 1, 2, 3),"
            " folded AS (INSERT INTO batch_counts AS c (tenant_id, batch_id, name, amount)"
            "  SELECT * FROM sums ON CONFLICT (tenant_id, batch_id, name)"
            "  DO UPDATE SET amount = c.amount + EXCLUDED.amount)"
            " SELECT DISTINCT batch_id FROM sums ORDER BY batch_id"
        ),
        {"tenant_id": tenant_id, "limit": limit},
    )
    return [row.batch_id for row in rows]


def applied(
    connection: Connection, tenant_id: int, batch_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, int]:
    """Return how many documents of each batch are stored, stale or rejected, as folded."""
    rows = connection.execute(
        text(
            "SELECT batch_id, sum(amount)::bigint AS amount FROM batch_counts"
            " WHERE tenant_id = :tenant_id AND batch_id = ANY(:batch_ids)"
            " AND name = ANY(:names) GROUP BY batch_id"
        ),
        {
            "tenant_id": tenant_id,
            "batch_ids": list(batch_ids),
            "names": [STORED, STALE, REJECTED],
        },
    )
    return {row.batch_id: row.amount for row in rows}


def counts(connection: Connection, tenant_id: int, batch_id: uuid.UUID) -> dict[str, int]:
    """Return a batch's counts by name, folded or not; empty when nothing is known of it."""
    rows = connection.execute(
        text(
            "SELECT name, sum(amount)::bigint AS amount FROM ("
            " SELECT name, amount FROM batch_counts"
            "  WHERE tenant_id = :tenant_id AND batch_id = :batch_id"
            " UNION ALL SELECT name, amount FROM batch_deltas"
            "  WHERE tenant_id = :tenant_id AND batch_id = :batch_id) c GROUP BY name"
        ),
        {"tenant_id": tenant_id, "batch_id": batch_id},
    )
    return {row.name: row.amount for row in rows}
