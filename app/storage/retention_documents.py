"""Retention of documents: those whose newest version is too old, with their ended deliveries.

Their table is walked along its key, so no index on a time is needed, which every upsert would pay
for. A document stays while one of its deliveries is open, while it is not routed yet, and while a
function of a collector waits for what it called it for.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from app.domain.documents import MAX_SEQ
from app.storage import counters, removal
from app.storage.counters import Delta
from app.storage.retention_walks import Cursor, Piece

LOOKED_AT = 2_000
"""Rows read in a piece, most of them for nothing."""
REMOVED = 500
DELIVERIES = 5_000
"""Removed in a piece, at most: one document may have had thousands."""

_PAGE = text(
    "SELECT id, updated_at < :cutoff AS old FROM documents"
    " WHERE tenant_id = :tenant_id AND id > :after ORDER BY id LIMIT :limit"
)
_LOCK = text(
    "SELECT id FROM documents WHERE tenant_id = :tenant_id AND id = ANY(CAST(:ids AS uuid[]))"
    " AND updated_at < :cutoff ORDER BY id FOR UPDATE SKIP LOCKED"
)
# Behind the locks, by a snapshot of its own: whoever plans a delivery locks its document first.
_SETTLED = text(
    "SELECT k.id FROM unnest(CAST(:ids AS uuid[])) AS k (id)"
    " WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id = :tenant_id"
    "  AND d.document_id = k.id AND d.state IN ('pending', 'held') OFFSET 0)"
    " AND NOT EXISTS (SELECT 1 FROM unplanned_documents u WHERE u.tenant_id = :tenant_id"
    "  AND u.document_id = k.id)"
    " AND NOT EXISTS (SELECT 1 FROM delivery_steps s WHERE s.tenant_id = :tenant_id"
    "  AND s.child_document_id = k.id AND s.state = 'open') ORDER BY k.id"
)
_DELETE = text(
    "DELETE FROM documents WHERE tenant_id = :tenant_id AND id = ANY(CAST(:ids AS uuid[]))"
)


def remove_old(
    connection: Connection, tenant_id: int, cutoff: datetime, cursor: Cursor | None
) -> Piece:
    """Remove documents of a piece of the table that were last updated before a time."""
    after = uuid.UUID(cursor[0]) if cursor else uuid.UUID(int=0)
    page = connection.execute(
        _PAGE, {"tenant_id": tenant_id, "cutoff": cutoff, "after": after, "limit": LOOKED_AT}
    ).all()
    old = [row.id for row in page if row.old]
    last = page[-1].id if len(page) == LOOKED_AT else None
    if len(old) > REMOVED:
        old = old[:REMOVED]
        last = old[-1]
    gone = _settled(connection, tenant_id, old, cutoff)
    deliveries = removal.remove_deliveries_of(
        connection, tenant_id, gone, last_seq=MAX_SEQ, limit=DELIVERIES
    )
    if len(deliveries) == DELIVERIES:
        # Some have more left: they and all behind them come with the next piece.
        unfinished = max(one.document_id for one in deliveries)
        gone = [one for one in gone if one < unfinished]
        last = gone[-1] if gone else after
    removed = _remove(connection, tenant_id, gone)
    return Piece(removed, None if last is None else [str(last)])


def _settled(
    connection: Connection, tenant_id: int, ids: Sequence[uuid.UUID], cutoff: datetime
) -> list[uuid.UUID]:
    if not ids:
        return []
    locked = connection.execute(
        _LOCK, {"tenant_id": tenant_id, "ids": list(ids), "cutoff": cutoff}
    ).scalars()
    rows = connection.execute(_SETTLED, {"tenant_id": tenant_id, "ids": list(locked)})
    return list(rows.scalars())


def _remove(connection: Connection, tenant_id: int, ids: Sequence[uuid.UUID]) -> int:
    if not ids:
        return 0
    removed = connection.execute(_DELETE, {"tenant_id": tenant_id, "ids": list(ids)}).rowcount
    counters.add(connection, tenant_id, [Delta("documents.removed", removed)])
    return removed
