"""Receipts: how often a chunk was tried, and that it counts once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
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


def begin_tries(
    connection: Connection, tenant_id: int, chunk_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Try]:
    """Count a try of each chunk. Committed before the risky part, so that a crash counts too."""
    rows = connection.execute(
        text(
            "INSERT INTO receipts AS r (tenant_id, chunk_id, tries)"
            " SELECT :tenant_id, chunk_id, 1 FROM unnest(CAST(:chunk_ids AS uuid[])) AS chunk_id"
            " ORDER BY chunk_id"
            " ON CONFLICT (tenant_id, chunk_id) DO UPDATE SET tries = r.tries + 1"
            " RETURNING chunk_id, tries, applied_at IS NOT NULL AS applied"
        ),
        {"tenant_id": tenant_id, "chunk_ids": list(chunk_ids)},
    )
    return {row.chunk_id: Try(row.tries, row.applied) for row in rows}


def announce_retry(
    connection: Connection, tenant_id: int, chunk_id: uuid.UUID, *, apart: bool
) -> None:
    """Say of a chunk, before it is appended, that its documents were rejected before.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        chunk_id: of the chunk to come.
        apart: it has a try on its account already, so that it is classified in a child from the
            start: its documents may kill the process that classifies them.
    """
    connection.execute(
        text(
            "INSERT INTO receipts (tenant_id, chunk_id, tries, retry)"
            " VALUES (:tenant_id, :chunk_id, :tries, true)"
        ),
        {"tenant_id": tenant_id, "chunk_id": chunk_id, "tries": int(apart)},
    )


def claim(
    connection: Connection, tenant_id: int, chunk_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, bool]:
    """Begin to apply chunks; return those that never were, which each is only once.

    With each, whether it is a retry of rejected documents. A twin that runs at the same time waits
    here for the first one's commit.
    """
    rows = connection.execute(
        text(
            "INSERT INTO receipts AS r (tenant_id, chunk_id, tries, applied_at)"
            " SELECT :tenant_id, chunk_id, 1, now()"
            " FROM unnest(CAST(:chunk_ids AS uuid[])) AS chunk_id ORDER BY chunk_id"
            " ON CONFLICT (tenant_id, chunk_id) DO UPDATE SET applied_at = now()"
            " WHERE r.applied_at IS NULL RETURNING chunk_id, retry"
        ),
        {"tenant_id": tenant_id, "chunk_ids": list(chunk_ids)},
    )
    return {row.chunk_id: row.retry for row in rows}


def complete(
    connection: Connection, tenant_id: int, counts: Mapping[uuid.UUID, ChunkCounts]
) -> None:
    """Write what became of chunks onto their receipts, which this transaction has claimed."""
    connection.execute(
        text(
            "UPDATE receipts r SET stored = c.stored, stale = c.stale, rejected = c.rejected,"
            " planned = c.planned FROM unnest(CAST(:chunk_ids AS uuid[]),"
            " CAST(:stored AS integer[]), CAST(:stale AS integer[]), CAST(:rejected AS integer[]),"
            " CAST(:planned AS integer[])) AS c (chunk_id, stored, stale, rejected, planned)"
            " WHERE r.tenant_id = :tenant_id AND r.chunk_id = c.chunk_id"
        ),
        {
            "tenant_id": tenant_id,
            "chunk_ids": list(counts),
            "stored": [one.stored for one in counts.values()],
            "stale": [one.stale for one in counts.values()],
            "rejected": [one.rejected for one in counts.values()],
            "planned": [one.planned for one in counts.values()],
        },
    )
