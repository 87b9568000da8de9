"""Removing rows for good, and counting them out: for retention and for purges.

What is removed stays in the counters. ``deliveries.removed.<state>`` per destination and
``documents.removed`` say how many rows a counter has more than its table; so the ledger adds up
whatever went (design 2.6). Locks are taken in key order, documents before deliveries, and rows that
somebody else has are left for the next round where that will do.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.domain.deliveries import OPEN
from app.storage import counters, tallies
from app.storage.counters import Delta
from app.storage.tallies import Owner


class RemovedDelivery(NamedTuple):
    """A delivery that is gone."""

    document_id: uuid.UUID
    seq: int
    destination_id: uuid.UUID
    generation: int
    state: str
    batch_id: uuid.UUID | None


Place = tuple[uuid.UUID, int, uuid.UUID, int]
"""Document, order number, destination, generation."""

_RETURNING = "RETURNING d.document_id, d.seq, d.destination_id, d.generation, d.state, d.batch_id"
# Tid scans, whatever the planner believes of the size of the list.
_DELETE_PLACES = text(
    "DELETE FROM deliveries d WHERE d.ctid = ANY(ARRAY(SELECT d.place FROM ("  # noqa: S608  (constants only)
    "  SELECT * FROM unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]),"
    "   CAST(:destinations AS uuid[]), CAST(:generations AS smallint[]))"
    "   AS k (document_id, seq, destination_id, generation)"
    "   ORDER BY document_id, seq, destination_id, generation) k"
    " CROSS JOIN LATERAL (SELECT d.ctid AS place FROM deliveries d"
    "  WHERE d.tenant_id = :tenant_id AND d.document_id = k.document_id AND d.seq = k.seq"
    "  AND d.destination_id = k.destination_id AND d.generation = k.generation"
    "  AND d.state NOT IN ('pending', 'held') AND d.ended_at < :cutoff"
    "  FOR UPDATE SKIP LOCKED) d)) "
    f"{_RETURNING}"
)
_OF_DOCUMENTS = (
    "SELECT d.place FROM (SELECT * FROM unnest(CAST(:documents AS uuid[])) AS k (document_id)"
    "  ORDER BY document_id) k"
    " CROSS JOIN LATERAL (SELECT d.ctid AS place FROM deliveries d"
    "  WHERE d.tenant_id = :tenant_id AND d.document_id = k.document_id AND d.seq <= :last_seq"
    "  ORDER BY d.seq, d.destination_id, d.generation {end}) d LIMIT :limit"
)
_LOCK_OF_DOCUMENTS = text(_OF_DOCUMENTS.format(end="FOR UPDATE"))
# A statement of its own: what the lock had to wait for lies at a place that its snapshot predates.
_DELETE_OF_DOCUMENTS = text(
    "DELETE FROM deliveries d WHERE d.ctid = ANY(ARRAY("  # noqa: S608  (constants only)
    f"{_OF_DOCUMENTS.format(end='OFFSET 0')})) {_RETURNING}"
)


def remove_deliveries(
    connection: Connection, tenant_id: int, places: Sequence[Place], cutoff: datetime
) -> int:
    """Remove those of some deliveries that ended before a time, with what collectors kept of them.

    Returns:
        How many were removed.
    """
    if not places:
        return 0
    ordered = sorted(places)
    rows = connection.execute(
        _DELETE_PLACES, {"tenant_id": tenant_id, "cutoff": cutoff, **_columns(ordered)}
    )
    removed = [RemovedDelivery(*row) for row in rows]
    forget(connection, tenant_id, removed)
    return len(removed)


def remove_deliveries_of(
    connection: Connection,
    tenant_id: int,
    document_ids: Sequence[uuid.UUID],
    *,
    last_seq: int,
    limit: int,
) -> list[RemovedDelivery]:
    """Remove deliveries of documents, with what collectors kept of them; open ones end cancelled.

    Args:
        connection: within a transaction that has locked the documents.
        tenant_id: whose.
        document_ids: whose deliveries.
        last_seq: of the last version concerned.
        limit: at most so many; the first ones by key.
    """
    if not document_ids:
        return []
    values = {
        "tenant_id": tenant_id,
        "documents": sorted(document_ids),
        "last_seq": last_seq,
        "limit": limit,
    }
    if connection.execute(_LOCK_OF_DOCUMENTS, values).first() is None:
        return []
    rows = connection.execute(_DELETE_OF_DOCUMENTS, values)
    removed = [RemovedDelivery(*row) for row in rows]
    still_open = Counter(
        Owner(one.destination_id, one.batch_id) for one in removed if one.state in OPEN
    )
    tallies.add(connection, tenant_id, [("cancelled", still_open)])
    ended = [one._replace(state="cancelled") if one.state in OPEN else one for one in removed]
    forget(connection, tenant_id, ended)
    return ended


def forget(connection: Connection, tenant_id: int, removed: Sequence[RemovedDelivery]) -> None:
    """Remove the results and calls of deliveries that are gone, and count these out."""
    if not removed:
        return
    places = [one[:4] for one in removed]
    for table in COLLECTED:
        remove_collected(connection, tenant_id, table, places)
    tally = Counter((one.state, one.destination_id) for one in removed)
    counters.add(
        connection,
        tenant_id,
        [
            Delta(f"deliveries.removed.{state}", amount, destination_id)
            for (state, destination_id), amount in sorted(tally.items())
        ],
    )


COLLECTED = ("delivery_results", "delivery_steps")
"""Tables whose keys begin with that of a delivery: what collectors returned and called for."""
_FORGET = {
    table: text(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT r.place FROM ("  # noqa: S608  (constants only)
        "  SELECT * FROM unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]),"
        "   CAST(:destinations AS uuid[]), CAST(:generations AS smallint[]))"
        "   AS k (document_id, seq, destination_id, generation)) k"
        f" CROSS JOIN LATERAL (SELECT r.ctid AS place FROM {table} r"
        "  WHERE r.tenant_id = :tenant_id AND r.document_id = k.document_id AND r.seq = k.seq"
        "  AND r.destination_id = k.destination_id AND r.generation = k.generation"
        "  OFFSET 0) r))"
    )
    for table in COLLECTED
}


def remove_collected(
    connection: Connection, tenant_id: int, table: str, places: Sequence[Place]
) -> int:
    """Remove the rows that one of the tables of ``COLLECTED`` has of deliveries."""
    if not places:
        return 0
    values = {"tenant_id": tenant_id, **_columns(sorted(places))}
    return connection.execute(_FORGET[table], values).rowcount


def _columns(places: Sequence[Place]) -> dict[str, object]:
    return {
        "documents": [place[0] for place in places],
        "seqs": [place[1] for place in places],
        "destinations": [place[2] for place in places],
        "generations": [place[3] for place in places],
    }
