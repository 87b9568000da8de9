"""Receipts: how often a chunk was tried, and that it counts once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCounts:
    """What became of a chunk's documents."""

    stored: int
    stale: int
    rejected: int
    planned: int


@dataclass(frozen=True, slots=True)
class Try:
    """The state of a chunk as it is taken up."""

    number: int
    applied: bool


def begin_try(connection: Connection, tenant_id: int, chunk_id: uuid.UUID) -> Try:
    """Count a try. Committed before the risky part, so that a crash is counted as well."""
    row = connection.execute(
        text(
            "INSERT INTO receipts AS r (tenant_id, chunk_id, tries)"
            " VALUES (:tenant_id, :chunk_id, 1)"
            " ON CONFLICT (tenant_id, chunk_id) DO UPDATE SET tries = r.tries + 1"
            " RETURNING tries, applied_at IS NOT NULL AS applied"
        ),
        {"tenant_id": tenant_id, "chunk_id": chunk_id},
    ).one()
    return Try(row.tries, row.applied)


def claim(connection: Connection, tenant_id: int, chunk_id: uuid.UUID) -> bool:
    """Begin to apply a chunk: True once ever per chunk, if the transaction commits.

    A twin that runs at the same time waits here for the first one's commit.
    """
    return (
        connection.execute(
            text(
                "INSERT INTO receipts AS r (tenant_id, chunk_id, tries, applied_at)"
                " VALUES (:tenant_id, :chunk_id, 1, now())"
                " ON CONFLICT (tenant_id, chunk_id) DO UPDATE SET applied_at = now()"
                " WHERE r.applied_at IS NULL RETURNING 1"
            ),
            {"tenant_id": tenant_id, "chunk_id": chunk_id},
        ).one_or_none()
        is not None
    )


def complete(
    connection: Connection, tenant_id: int, chunk_id: uuid.UUID, counts: ChunkCounts
) -> None:
    """Write what became of the chunk onto its receipt."""
    connection.execute(
        text(
            "UPDATE receipts SET stored = :stored, stale = :stale, rejected = :rejected,"
            " planned = :planned WHERE tenant_id = :tenant_id AND chunk_id = :chunk_id"
        ),
        {
            "tenant_id": tenant_id,
            "chunk_id": chunk_id,
            "stored": counts.stored,
            "stale": counts.stale,
            "rejected": counts.rejected,
            "planned": counts.planned,
        },
    )
