"""Periodic work: every worker asks, one atomic update decides who does it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

from app.storage.due import SOMETHING_DUE


def take(connection: Connection, tenant_id: int, name: str, every_seconds: float) -> bool:
    """Tell whether it is this caller's turn; at most one caller per period gets True."""
    return (
        connection.execute(
            text(
                "INSERT INTO ticks AS t (tenant_id, name, next_at) VALUES (:tenant_id, :name,"
                " clock_timestamp() + make_interval(secs => :every))"
                " ON CONFLICT (tenant_id, name) DO UPDATE SET next_at = EXCLUDED.next_at"
                " WHERE t.next_at <= clock_timestamp() RETURNING 1"
            ),
            {"tenant_id": tenant_id, "name": name, "every": every_seconds},
        ).one_or_none()
        is not None
    )


def waiting_destinations(
    connection: Connection, tenant_id: int, *, among: Sequence[uuid.UUID] | None = None
) -> list[uuid.UUID]:
    """Return enabled destinations that have something due and nobody who holds them.

    All of them, or those ``among`` some.

    A probe of two indexes per destination: a DISTINCT over the backlog costs 95 ms per million
    rows, this 4 ms for 1,000 destinations (design 2.5).
    """
    rows = connection.execute(
        text(
            "SELECT s.id FROM destinations s LEFT JOIN destination_runtime r"  # noqa: S608  (constants only)
            " ON r.tenant_id = s.tenant_id AND r.destination_id = s.id"
            " WHERE s.tenant_id = :tenant_id AND s.deleted_at IS NULL AND s.enabled"
            " AND s.paused_at IS NULL"
            " AND (CAST(:among AS uuid[]) IS NULL OR s.id = ANY(CAST(:among AS uuid[])))"
            " AND (r.holder IS NULL OR r.lease_expires_at < clock_timestamp())"
            " AND (r.blocked_until IS NULL OR r.blocked_until < clock_timestamp())"
            f" AND {SOMETHING_DUE.format(tenant='s.tenant_id', id='s.id')}"
        ),
        {"tenant_id": tenant_id, "among": None if among is None else list(among)},
    )
    return [row.id for row in rows]
