"""Deliveries of destinations that are paused or disabled: held, and taken up again.

Nothing is sent to such a destination from the moment in which it is paused, because reads look at
the destination. That its rows are called ``held`` follows within a tick, a piece at a time: a pause
in front of a million deliveries answers at once.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

PIECE_ROWS = 5_000

_KEY = "tenant_id, document_id, seq, destination_id, generation"
_MOVE = (
    "WITH open AS (SELECT {d_key} FROM destinations s CROSS JOIN LATERAL ({rows}) d"
    "  WHERE s.tenant_id = :tenant_id AND s.deleted_at IS NULL AND {which} LIMIT :limit),"
    # In key order, as everybody who locks several.
    " locked AS (SELECT {d_key} FROM deliveries d JOIN open USING ({key})"
    "  ORDER BY document_id, seq, destination_id, generation FOR UPDATE OF d)"
    " UPDATE deliveries d SET {change} FROM locked k"
    " WHERE ({d_key}) = (k.tenant_id, k.document_id, k.seq, k.destination_id, k.generation)"
    " AND d.state = '{state}'"
)
_D_KEY = ", ".join(f"d.{name}" for name in _KEY.split(", "))
# One index each, as the holder reads.
_PENDING = (
    "(SELECT * FROM deliveries WHERE tenant_id = s.tenant_id AND destination_id = s.id"
    "  AND state = 'pending' AND attempts = 0 ORDER BY rank, seq LIMIT :limit)"
    " UNION ALL (SELECT * FROM deliveries WHERE tenant_id = s.tenant_id AND destination_id = s.id"
    "  AND state = 'pending' AND attempts > 0 ORDER BY due_at LIMIT :limit)"
)
_HELD = (
    "SELECT * FROM deliveries WHERE tenant_id = s.tenant_id AND destination_id = s.id"
    " AND state = 'held' ORDER BY seq LIMIT :limit"
)
_HOLD = text(
    _MOVE.format(
        key=_KEY,
        d_key=_D_KEY,
        rows=_PENDING,
        which="NOT (s.enabled AND s.paused_at IS NULL)",
        change="state = 'held'",
        state="pending",
    )
)
# Age begins anew: a receiver that was paused for a week may stumble once when it is back.
_RESUME = text(
    _MOVE.format(
        key=_KEY,
        d_key=_D_KEY,
        rows=_HELD,
        which="s.enabled AND s.paused_at IS NULL",
        change="state = 'pending', resumed_at = now(), due_at = GREATEST(d.due_at, now())",
        state="held",
    )
)


def hold(connection: Connection, tenant_id: int, *, limit: int = PIECE_ROWS) -> int:
    """Hold what is pending for destinations that are not sent to; return how many, at most so many.

    A request in flight may still end: what comes of it is recorded, and a success counts.
    """
    return connection.execute(_HOLD, {"tenant_id": tenant_id, "limit": limit}).rowcount


def resume(connection: Connection, tenant_id: int, *, limit: int = PIECE_ROWS) -> int:
    """Make pending again what is held for destinations that are sent to; return how many."""
    return connection.execute(_RESUME, {"tenant_id": tenant_id, "limit": limit}).rowcount
