"""What was accepted, written down: Redis counts it in the append, this keeps it by the hour.

The marks say what Redis had counted when it was last asked; what it counts beyond them is yet to be
written down. A Redis that counts less than its mark has lost data; its count goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, text

from app.storage import counters
from app.storage.counters import Delta

ACCEPTED = "documents.accepted"
ONE_AT_A_TIME = 0x41636370  # "Accp": class of the advisory locks, one for each tenant


def note(connection: Connection, tenant_id: int, read: Callable[[], Mapping[str, int]]) -> int:
    """Write down what was accepted since the last time; return how much.

    Nothing while somebody else is at it, who may be frozen in the middle. The rows themselves are
    no lock: in the beginning there are none.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        read: asks Redis for its counts per lane; called behind the lock, so that two who do this
            at once do not write an older count over a newer one.
    """
    alone = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(:key, :tenant_id)"),
        {"key": ONE_AT_A_TIME, "tenant_id": tenant_id},
    ).scalar_one()
    if not alone:
        return 0
    known = _marks(connection, tenant_id, lock=True)
    found = read()
    more = sum(max(0, count - known.get(lane, 0)) for lane, count in found.items())
    changed = {lane: count for lane, count in sorted(found.items()) if count != known.get(lane)}
    if changed:
        connection.execute(
            text(
                "INSERT INTO accepted_marks (tenant_id, lane, accepted)"
                " SELECT :tenant_id, m.* FROM unnest(CAST(:lanes AS text[]),"
                " CAST(:counts AS bigint[])) AS m ON CONFLICT (tenant_id, lane)"
                " DO UPDATE SET accepted = EXCLUDED.accepted, noted_at = now()"
            ),
            {
                "tenant_id": tenant_id,
                "lanes": list(changed),
                "counts": list(changed.values()),
            },
        )
    counters.add(connection, tenant_id, [Delta(ACCEPTED, more)])
    return more


def beyond_marks(connection: Connection, tenant_id: int, found: Mapping[str, int]) -> int:
    """Return how much of what Redis counts has yet to be written down."""
    known = _marks(connection, tenant_id)
    return sum(max(0, count - known.get(lane, 0)) for lane, count in found.items())


def _marks(connection: Connection, tenant_id: int, *, lock: bool = False) -> dict[str, int]:
    rows = connection.execute(
        text(
            "SELECT lane, accepted FROM accepted_marks WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" ORDER BY lane{' FOR UPDATE' if lock else ''}"
        ),
        {"tenant_id": tenant_id},
    )
    return {row.lane: row.accepted for row in rows}
