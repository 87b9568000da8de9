"""Retention of all else than documents and attempts, one function per kind of row.

Each takes a cursor and removes one piece of what is older than a cutoff. Keys that are UUIDv7 or
order numbers have their time in them, so what is old is the beginning of an index; the others are
walked along their key. No table is read from end to end in one go, and none has an index for this.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text

from app.domain.identifiers import first_id_of, made_at
from app.domain.retention import Kept
from app.storage import counters, removal, retention_documents
from app.storage.counters import Delta
from app.storage.retention_counters import gather_days
from app.storage.retention_walks import Cursor, Piece

PIECE = 1_000
NIL = uuid.UUID(int=0)

Step = Callable[[Connection, int, datetime, Cursor | None], Piece]
"""Tenant, cutoff, cursor."""

# A function that waits for a delivery still has to read what it came to.
_READ = (
    "NOT EXISTS (SELECT 1 FROM delivery_steps s WHERE s.tenant_id = :tenant_id"
    " AND s.child_document_id = d.document_id AND s.state = 'open')"
)
_DELIVERIES = text(
    "SELECT d.document_id, d.seq, d.destination_id, d.generation,"  # noqa: S608  (constants only)
    f" d.state NOT IN ('pending', 'held') AND d.ended_at < :cutoff AND {_READ} AS old"
    " FROM deliveries d WHERE d.tenant_id = :tenant_id"
    " AND (d.seq, d.destination_id) > (:seq, CAST(:destination AS uuid)) AND d.seq < :before"
    " ORDER BY d.seq, d.destination_id LIMIT :limit"
)


def remove_deliveries(
    connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Remove deliveries that ended before a time, those of the oldest documents first."""
    seq, destination = cursor or (0, str(NIL))
    page = connection.execute(
        _DELIVERIES,
        {
            "tenant_id": tenant_id,
            "cutoff": cutoff,
            "seq": seq,
            "destination": destination,
            "before": _first_seq_of(cutoff),
            "limit": PIECE,
        },
    ).all()
    places = [tuple(row)[:4] for row in page if row.old]
    removed = removal.remove_deliveries(connection, tenant_id, places, cutoff)
    more = len(page) == PIECE
    return Piece(removed, [page[-1].seq, str(page[-1].destination_id)] if more else None)


_COLLECTED = {
    table: text(
        "SELECT k.*, d.state IS NULL OR"  # noqa: S608  (constants only)
        "  (d.state NOT IN ('pending', 'held') AND d.ended_at < :cutoff"
        f"   AND {_READ}) AS old"
        " FROM (SELECT document_id, seq, destination_id, generation"
        f"  FROM {table} WHERE tenant_id = :tenant_id"
        "  AND (document_id, seq, destination_id, generation)"
        "   > (CAST(:document AS uuid), :seq, CAST(:destination AS uuid), :generation)"
        "  ORDER BY document_id, seq, destination_id, generation LIMIT :limit) k"
        " LEFT JOIN LATERAL (SELECT d.* FROM deliveries d"
        "  WHERE d.tenant_id = :tenant_id AND d.document_id = k.document_id AND d.seq = k.seq"
        "  AND d.destination_id = k.destination_id AND d.generation = k.generation"
        "  LIMIT 1) d ON true ORDER BY document_id, seq, destination_id, generation"
    )
    for table in removal.COLLECTED
}


def _remove_collected(
    table: str, connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Remove what collectors returned, or called for, for deliveries that ended before a time."""
    document, seq, destination, generation = cursor or (str(NIL), 0, str(NIL), 0)
    page = connection.execute(
        _COLLECTED[table],
        {
            "tenant_id": tenant_id,
            "cutoff": cutoff,
            "document": document,
            "seq": seq,
            "destination": destination,
            "generation": generation,
            "limit": PIECE,
        },
    ).all()
    old = {tuple(row)[:4] for row in page if row.old}
    removed = removal.remove_collected(connection, tenant_id, table, sorted(old))
    if len(page) < PIECE:
        return Piece(removed, None)
    last = page[-1]
    return Piece(
        removed, [str(last.document_id), last.seq, str(last.destination_id), last.generation]
    )


_BEGINNINGS = {
    # The inner limit bounds what is read where a clock was wrong and the keys do not fit the times.
    Kept.RECEIPTS: text(
        "DELETE FROM receipts WHERE ctid = ANY(ARRAY(SELECT place FROM ("
        "  SELECT ctid AS place, created_at FROM receipts"
        "  WHERE tenant_id = :tenant_id AND chunk_id < :first_id ORDER BY chunk_id LIMIT :limit"
        "  FOR UPDATE SKIP LOCKED) r WHERE created_at < :cutoff))"
    ),
    Kept.REJECTED: text(
        "DELETE FROM rejected_documents WHERE ctid = ANY(ARRAY("
        " SELECT r.ctid FROM rejected_documents r WHERE r.tenant_id = :tenant_id"
        "  AND r.seq < :first_seq AND r.rejected_at < :cutoff"
        "  ORDER BY r.seq LIMIT :limit FOR UPDATE SKIP LOCKED))"
    ),
    Kept.REPLAYS: text(
        "DELETE FROM replays WHERE tenant_id = :tenant_id AND id = ANY(ARRAY("
        " SELECT r.id FROM replays r WHERE r.tenant_id = :tenant_id"
        "  AND r.id < :first_id AND r.finished_at < :cutoff"
        "  ORDER BY r.id LIMIT :limit FOR UPDATE SKIP LOCKED))"
    ),
}
_OLD_EVENTS = text(
    "SELECT e.id FROM operational_events e WHERE e.tenant_id = :tenant_id"
    " AND e.id < :first_id AND e.created_at < :cutoff"
    # Those that somebody has yet to get stay.
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id = :tenant_id"
    "  AND d.document_id = e.id AND d.state IN ('pending', 'held') OFFSET 0)"
    " ORDER BY e.id LIMIT :limit FOR UPDATE SKIP LOCKED"
)
# Looks again, behind the locks and by a snapshot of its own: a replay may have planned one since
# the first look. Whoever plans one later locks it first.
_DELETE_EVENTS = text(
    "DELETE FROM operational_events e WHERE e.tenant_id = :tenant_id"
    " AND e.id = ANY(CAST(:ids AS uuid[]))"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id = :tenant_id"
    "  AND d.document_id = e.id AND d.state IN ('pending', 'held') OFFSET 0)"
)
_COUNTED = {Kept.REJECTED: "rejected.removed"}


def _remove_beginning(
    kept: Kept,
    connection: Connection,
    tenant_id: int,
    cutoff: datetime,
    cursor: Cursor | None,  # noqa: ARG001  (a Step: what is old is always at the beginning)
) -> Piece:
    """Remove rows from the beginning of a table whose keys rise with time."""
    removed = connection.execute(
        _BEGINNINGS[kept],
        {
            "tenant_id": tenant_id,
            "cutoff": cutoff,
            "first_id": first_id_of(cutoff),
            "first_seq": _first_seq_of(cutoff),
            "limit": PIECE,
        },
    ).rowcount
    if name := _COUNTED.get(kept):
        counters.add(connection, tenant_id, [Delta(name, removed)])
    return Piece(removed, [] if removed == PIECE else None)


def remove_events(
    connection: Connection,
    tenant_id: int,
    cutoff: datetime,
    cursor: Cursor | None,  # noqa: ARG001  (likewise)
) -> Piece:
    """Remove operational events that were told before a time and that nobody is yet to get."""
    old = connection.execute(
        _OLD_EVENTS,
        {
            "tenant_id": tenant_id,
            "cutoff": cutoff,
            "first_id": first_id_of(cutoff),
            "limit": PIECE,
        },
    ).scalars()
    ids = list(old)
    values = {"tenant_id": tenant_id, "ids": ids}
    removed = connection.execute(_DELETE_EVENTS, values).rowcount if ids else 0
    return Piece(removed, [] if len(ids) == PIECE else None)


_TOMBSTONES = text(
    "WITH page AS (SELECT document_id, deleted_at < :cutoff AND NOT purging AS old FROM tombstones"
    "  WHERE tenant_id = :tenant_id AND document_id > :after ORDER BY document_id LIMIT :limit)"
    # Somebody may try an older version again. Its copy stays, and so must what keeps it out.
    " SELECT p.document_id, p.old AND NOT EXISTS (SELECT 1 FROM rejected_documents r"
    "  WHERE r.tenant_id = :tenant_id AND r.document_id = p.document_id AND r.stage <> 'router'"
    "  OFFSET 0) AS old FROM page p ORDER BY p.document_id"
)
_DELETE_TOMBSTONES = text(
    "DELETE FROM tombstones WHERE ctid = ANY(ARRAY(SELECT ctid FROM tombstones"
    " WHERE tenant_id = :tenant_id AND document_id = ANY(CAST(:ids AS uuid[]))"
    " AND deleted_at < :cutoff AND NOT purging ORDER BY document_id FOR UPDATE SKIP LOCKED))"
)


def remove_tombstones(
    connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Remove tombstones of what was deleted before a time."""
    after = cursor[0] if cursor else str(NIL)
    values = {"tenant_id": tenant_id, "cutoff": cutoff}
    page = connection.execute(_TOMBSTONES, {**values, "after": after, "limit": PIECE}).all()
    ids = [row.document_id for row in page if row.old]
    removed = connection.execute(_DELETE_TOMBSTONES, {**values, "ids": ids}).rowcount if ids else 0
    return Piece(removed, [str(page[-1].document_id)] if len(page) == PIECE else None)


# A batch is done when as many of its deliveries ended as were planned: said by its own counts.
_BATCHES = text(
    "SELECT batch_id, sum(CASE WHEN name = 'planned' THEN amount"
    "  WHEN name IN ('delivered', 'failed', 'superseded', 'cancelled') THEN -amount"
    "  ELSE 0 END) <= 0 AS old, sum(count(*)) OVER () AS read"
    " FROM (SELECT * FROM batch_counts WHERE tenant_id = :tenant_id AND batch_id > :after"
    "  AND batch_id < :first_id ORDER BY batch_id LIMIT :limit) c GROUP BY batch_id ORDER BY 1"
)
_DELETE_BATCHES = text(
    "DELETE FROM batch_counts WHERE tenant_id = :tenant_id AND batch_id = ANY(CAST(:ids AS uuid[]))"
)


def remove_batches(
    connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Remove the counts of batches that were begun before a time and have ended."""
    page = connection.execute(
        _BATCHES,
        {
            "tenant_id": tenant_id,
            "after": cursor[0] if cursor else str(NIL),
            "first_id": first_id_of(cutoff),
            "limit": PIECE,
        },
    ).all()
    more = bool(page) and page[0].read == PIECE
    # The last one of a full page may have counts behind it.
    whole = page[:-1] if more else page
    ids = [row.batch_id for row in whole if row.old]
    removed = 0
    if ids:
        removed = connection.execute(_DELETE_BATCHES, {"tenant_id": tenant_id, "ids": ids}).rowcount
    return Piece(removed, [str(whole[-1].batch_id)] if more else None)


def dead_since(connection: Connection, tenant_id: int) -> datetime | None:
    """Return when the oldest dead letter was accepted, None without one; they are few."""
    oldest = connection.execute(
        text("SELECT min(message_id) FROM dead_letters WHERE tenant_id = :tenant_id"),
        {"tenant_id": tenant_id},
    ).scalar_one()
    if oldest is None:
        return None
    try:
        at = made_at(uuid.UUID(oldest))
    except ValueError:
        at = None
    # One that does not say may be as old as anything.
    return at or datetime.min.replace(tzinfo=UTC) + timedelta(days=36_500)


def _first_seq_of(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


STEPS: Mapping[Kept, Step] = {
    Kept.DOCUMENTS: retention_documents.remove_old,
    Kept.DELIVERIES: remove_deliveries,
    Kept.RESULTS: partial(_remove_collected, "delivery_results"),
    Kept.STEPS: partial(_remove_collected, "delivery_steps"),
    Kept.EVENTS: remove_events,
    Kept.REJECTED: partial(_remove_beginning, Kept.REJECTED),
    Kept.BATCHES: remove_batches,
    Kept.REPLAYS: partial(_remove_beginning, Kept.REPLAYS),
    Kept.COUNTERS: gather_days,
    Kept.RECEIPTS: partial(_remove_beginning, Kept.RECEIPTS),
    Kept.TOMBSTONES: remove_tombstones,
}
"""How each kind goes."""
