"""Deliveries that are due: what a holder reads, and whether there is anything to read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.domain.delivery_rules import QueueKind
from app.storage.deliveries import DeliveryKey
from app.storage.engine import fetch


class DueDelivery(NamedTuple):
    """A delivery that may be sent, with the document as it is stored now.

    Attributes:
        topics_json, attributes_json: as they are stored; most receivers get them without anybody
            having parsed them.
        rank: goes before its age; lower is sooner.
        open_since: when it was planned, or resumed last.
        document_seq: of the content that was read. Where it is not ``key.seq``, a newer version
            has replaced the announced one, and the delivery is superseded.
        event_type: of an operational event, whose data (JSON) is then the content; None for a
            document.
    """

    key: DeliveryKey
    version: int
    attempts: int
    created_at: datetime
    rank: int
    due_at: datetime
    open_since: datetime
    last_status: int | None
    document_seq: int
    content: str
    category: str | None
    confidence: float | None
    model_version: str | None
    topics_json: str | None
    attributes_json: str | None
    document_created_at: datetime
    document_updated_at: datetime
    event_type: str | None = None
    keys: list[str] | None = None
    delivery: str | None = None
    priority: int | None = None

    @property
    def topics(self) -> list[str] | None:
        """The document's topics, None when the client never sent any."""
        return None if self.topics_json is None else json.loads(self.topics_json)

    @property
    def attributes(self) -> dict[str, Any] | None:
        """Likewise its attributes."""
        return None if self.attributes_json is None else json.loads(self.attributes_json)


class DuePage(NamedTuple):
    """What a holder has read: never tried, and due again."""

    fresh: list[DueDelivery]
    retries: list[DueDelivery]


# The running sum bounds the bytes of a page; `octet_length` reads sizes, not contents, so what
# lies beyond the bound is never fetched. The first row always passes, however large.
_DUE = (
    "SELECT {columns} FROM (SELECT d.document_id, d.seq, d.generation, d.version, d.attempts,"
    " d.created_at, d.rank, d.due_at, COALESCE(d.resumed_at, d.created_at) AS open_since,"
    " d.last_status, d.event_type,"
    " COALESCE(o.seq, d.seq) AS document_seq,"
    " COALESCE(o.content, e.content) AS content, o.category, o.confidence, o.model_version,"
    " o.topics::text AS topics_json, o.attributes::text AS attributes_json,"
    " o.keys, o.delivery, o.priority,"
    " COALESCE(o.created_at, d.created_at) AS document_created_at,"
    " COALESCE(o.updated_at, d.created_at) AS document_updated_at,"
    " sum(octet_length(COALESCE(o.content, e.content)))"
    "  OVER (ORDER BY {d_order} ROWS UNBOUNDED PRECEDING)"
    "  - octet_length(COALESCE(o.content, e.content)) AS bytes_before"
    " FROM (SELECT * FROM deliveries WHERE tenant_id = %(tenant_id)s"
    "  AND destination_id = %(destination_id)s AND state = 'pending' AND {which}"
    "  AND seq <> ALL(CAST(%(known)s AS bigint[]))"
    "  AND EXISTS (SELECT 1 FROM destinations WHERE tenant_id = %(tenant_id)s"
    "   AND id = %(destination_id)s AND enabled AND paused_at IS NULL AND deleted_at IS NULL)"
    "  ORDER BY {order} LIMIT %(limit)s) d"
    " LEFT JOIN documents o ON o.tenant_id = %(tenant_id)s AND o.id = d.document_id"
    "  AND d.event_type IS NULL"
    # Bounded, so that it stays a look-up of its own, which rows of documents do not even begin.
    " LEFT JOIN LATERAL (SELECT e.data::text AS content FROM operational_events e"
    "  WHERE d.event_type IS NOT NULL AND e.tenant_id = %(tenant_id)s AND e.id = d.document_id"
    "  LIMIT 1) e ON true"
    " WHERE o.id IS NOT NULL OR e.content IS NOT NULL) page"
    " WHERE bytes_before < %(max_bytes)s ORDER BY {order}"
)
_COLUMNS = ("document_id", "seq", "generation", *DueDelivery._fields[1:])
"""The parts of the key that a destination's deliveries differ by, and everything else."""


def _due(which: str, *order: str) -> str:
    return _DUE.format(
        columns=", ".join(_COLUMNS),
        which=which,
        order=", ".join(order),
        d_order=", ".join(f"d.{one}" for one in order),
    )


_FRESH: dict[QueueKind, str] = {
    "fifo": _due("attempts = 0 AND (rank, seq) > (%(after_rank)s, %(after_seq)s)", "rank", "seq"),
    "priority": _due("attempts = 0", "rank", "seq"),
    "lifo": _due("attempts = 0", "rank DESC", "seq DESC"),
}
_RETRIES = _due("attempts > 0 AND due_at <= now()", "due_at", "seq")


class Position(NamedTuple):
    """Where a row stands among those never tried."""

    rank: int
    seq: int


START = Position(-1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which deliveries of a destination are wanted, and in which order those never tried.

    Attributes:
        queue: the destination's order.
        after: with ``fifo``: behind this one. Always beginning at the start would read over every
            row that has just ended.
        known: order numbers (``seq``) to leave out.
    """

    queue: QueueKind = "fifo"
    after: Position = START
    known: Sequence[int] = ()


def read_due(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    *,
    max_rows: int,
    max_bytes: int,
    selection: Selection | None = None,
) -> DuePage:
    """Read what may be sent to a destination, half of it fresh and half retries.

    Nothing is claimed: the lease already says who sends. Reading costs the same whatever the
    backlog, because each half has its index, and with ``fifo`` a bound from below.

    Args:
        connection: within a transaction.
        tenant_id: of the destination.
        destination_id: whose deliveries.
        max_rows: at most this many in all. A half that finds less leaves its room to the other.
        max_bytes: a half ends behind the row that passes this size of content.
        selection: all there are, the oldest first, unless given.

    Returns:
        Nothing for a destination that is paused, disabled or deleted.
    """
    wanted = selection or Selection()
    where = {
        "tenant_id": tenant_id,
        "destination_id": destination_id,
        "max_bytes": max_bytes,
        "after_rank": wanted.after.rank,
        "after_seq": wanted.after.seq,
        # As text: the driver converts a list number by number.
        "known": f"{{{','.join(map(str, wanted.known))}}}",
    }

    def read(statement: str, limit: int) -> list[DueDelivery]:
        return [
            DueDelivery(DeliveryKey(tenant_id, id_, seq, destination_id, generation), *rest)
            for id_, seq, generation, *rest in fetch(
                connection, statement, {**where, "limit": limit}
            )
        ]

    half = max(1, max_rows // 2)
    retries = read(_RETRIES, half)
    fresh = read(_FRESH[wanted.queue], max_rows - len(retries))
    if len(retries) == half and len(fresh) < half:
        retries = read(_RETRIES, max_rows - len(fresh))
    return DuePage(fresh, retries)


# Reads the first entry of each of the two indexes. EXISTS would leave the way to the planner, which
# takes states and destinations for independent, expects a match within a few rows and reads the
# whole table when there is none: 270 ms with 3 million deliveries, against 0.4 ms.
SOMETHING_DUE = (
    "((SELECT d.seq FROM deliveries d WHERE d.tenant_id = {tenant} AND d.destination_id = {id}"
    "  AND d.state = 'pending' AND d.attempts = 0 ORDER BY d.rank, d.seq LIMIT 1) IS NOT NULL"
    " OR COALESCE((SELECT d.due_at FROM deliveries d"
    "  WHERE d.tenant_id = {tenant} AND d.destination_id = {id}"
    "  AND d.state = 'pending' AND d.attempts > 0 ORDER BY d.due_at LIMIT 1) <= now(), false))"
)
"""SQL condition: a destination has a delivery that may be sent now."""


def has_due(connection: Connection, tenant_id: int, destination_id: uuid.UUID) -> bool:
    """Tell whether anything may be sent to a destination now."""
    condition = SOMETHING_DUE.format(tenant=":tenant_id", id=":destination_id")
    return bool(
        connection.execute(
            text(f"SELECT {condition}"),
            {"tenant_id": tenant_id, "destination_id": destination_id},
        ).scalar_one()
    )
