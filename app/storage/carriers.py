"""Which worker processes carry which collectors: rows that expire unless they are renewed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

FORGET_SECONDS = 86_400
"""Rows of processes that died are removed this long behind their end."""


def carry(
    connection: Connection,
    tenant_id: int,
    destination_ids: Sequence[uuid.UUID],
    process: str,
    ttl_seconds: float,
) -> None:
    """Say that a process carries these collectors, and no others, for the time being."""
    values = {
        "tenant_id": tenant_id,
        "ids": sorted(destination_ids),
        "process": process,
        "ttl": ttl_seconds,
        "forget": FORGET_SECONDS,
    }
    connection.execute(
        text(
            "DELETE FROM collector_carriers WHERE tenant_id = :tenant_id"
            " AND (process = :process AND destination_id <> ALL(:ids)"
            "  OR expires_at < clock_timestamp() - make_interval(secs => :forget))"
        ),
        values,
    )
    connection.execute(
        text(
            "INSERT INTO collector_carriers (tenant_id, destination_id, process, expires_at)"
            " SELECT :tenant_id, id, :process, clock_timestamp() + make_interval(secs => :ttl)"
            " FROM unnest(CAST(:ids AS uuid[])) AS id ORDER BY id"
            " ON CONFLICT (tenant_id, destination_id, process)"
            " DO UPDATE SET expires_at = EXCLUDED.expires_at"
        ),
        values,
    )


def let_go(connection: Connection, tenant_id: int, process: str) -> None:
    """Say that a process carries nothing any more."""
    connection.execute(
        text("DELETE FROM collector_carriers WHERE tenant_id = :tenant_id AND process = :process"),
        {"tenant_id": tenant_id, "process": process},
    )


def carried(
    connection: Connection, tenant_id: int, destination_ids: Sequence[uuid.UUID]
) -> set[uuid.UUID]:
    """Return those of the collectors that some process carries."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT destination_id FROM collector_carriers WHERE tenant_id = :tenant_id"
            " AND destination_id = ANY(:ids) AND expires_at >= clock_timestamp()"
        ),
        {"tenant_id": tenant_id, "ids": list(destination_ids)},
    )
    return {row.destination_id for row in rows}
