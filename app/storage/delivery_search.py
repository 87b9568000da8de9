"""Finding deliveries: by state, destination, document, batch, time and error, the newest first.

Each search walks one index in the order of acceptance: that of the undelivered (partial, so that
what failed is found beside any number of delivered ones), that of the batch, or that of all; a
document's are found by the primary key. Conditions that the index does not have are applied behind
the walk, which is bounded: a page may be short although there is more.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, text

from app.domain.deliveries import DeliveryState
from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import MAX_SEQ

Wanted = Literal[
    "undelivered",
    "open",
    "retrying",
    "pending",
    "held",
    "delivered",
    "failed",
    "superseded",
    "cancelled",
]
"""States, and names for several of them: ``retrying`` is pending behind a first attempt."""

_STATES: dict[str, tuple[str, ...]] = {
    "undelivered": ("pending", "held", "failed"),
    "open": ("pending", "held"),
    "retrying": ("pending",),
    **{state.value: (state.value,) for state in DeliveryState},
}
_UNDELIVERED = frozenset(_STATES["undelivered"])
_FIRST_WALK = 1_000
_LONG_WALK = 20_000
_ORDER = "seq DESC, document_id DESC, destination_id DESC, generation DESC"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries; what is None or empty does not matter.

    Attributes:
        states: any of these.
        seq, generation: with ``document_id``, what a webhook-id names.
        since, until: of the acceptance of the document's version; from, up to and without.
        status: of the last answer.
        error: part of the last error's text, upper and lower case alike.
        ended_before: ended, and before this moment.
    """

    states: tuple[Wanted, ...] = ()
    destination_id: uuid.UUID | None = None
    document_id: uuid.UUID | None = None
    batch_id: uuid.UUID | None = None
    seq: int | None = None
    generation: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    status: int | None = None
    error: str | None = None
    ended_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """A delivery as it stands.

    Attributes:
        event_type: of an operational event, whose id is then ``document_id``.
        destination_key: also of a destination that was deleted.
        due_at: of the next attempt, while the delivery is open.
    """

    document_id: uuid.UUID
    seq: int
    destination_id: uuid.UUID
    generation: int
    version: int
    event_type: str | None
    destination_key: str | None
    batch_id: uuid.UUID | None
    reason: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    due_at: datetime | None
    attempted_at: datetime | None
    ended_at: datetime | None

    @property
    def place(self) -> DeliveryPlace:
        """Its key."""
        return DeliveryPlace(self.document_id, self.seq, self.destination_id, self.generation)


class DeliveryPage(NamedTuple):
    """Some deliveries; ``next`` is where to go on, None at the end."""

    items: list[DeliveryRecord]
    next: DeliveryPlace | None


_COLUMNS = (
    "w.document_id, w.seq, w.destination_id, w.generation, w.version, w.event_type,"
    " s.key AS destination_key, w.batch_id, w.reason, w.state, w.attempts, w.last_status,"
    " w.last_error, w.created_at, CASE WHEN w.ended_at IS NULL THEN w.due_at END AS due_at,"
    " w.attempted_at, w.ended_at"
)
_DESTINATION = "LEFT JOIN destinations s ON s.tenant_id = :tenant_id AND s.id = w.destination_id"


def get(connection: Connection, tenant_id: int, place: DeliveryPlace) -> DeliveryRecord | None:
    """Return a delivery, or None."""
    row = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM deliveries w {_DESTINATION}"  # noqa: S608  (constants only)
            " WHERE w.tenant_id = :tenant_id AND w.document_id = :document_id AND w.seq = :seq"
            " AND w.destination_id = :destination_id AND w.generation = :generation"
        ),
        {"tenant_id": tenant_id, **place._asdict()},
    ).one_or_none()
    return None if row is None else _record(row)


def find(
    connection: Connection,
    tenant_id: int,
    wanted: DeliveryFilter,
    *,
    limit: int,
    after: DeliveryPlace | None = None,
) -> DeliveryPage:
    """Return a page of deliveries, those of the documents accepted last first.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        wanted: which.
        limit: at most this many.
        after: where the last page ended.
    """
    found: list[DeliveryRecord] = []
    for most in (max(_FIRST_WALK, limit + 1), _LONG_WALK):
        rows = _walk(connection, tenant_id, wanted, after, most)
        found += [_record(row) for row in rows if row.matches]
        if len(found) > limit:
            return DeliveryPage(found[:limit], found[limit - 1].place)
        walked_all = not rows or rows[-1].number < most
        if walked_all:
            return DeliveryPage(found, None)
        last = rows[-1]
        after = DeliveryPlace(last.document_id, last.seq, last.destination_id, last.generation)
    return DeliveryPage(found, after)


def _walk(
    connection: Connection,
    tenant_id: int,
    wanted: DeliveryFilter,
    after: DeliveryPlace | None,
    most: int,
) -> list[Row[Any]]:
    """Return the matching rows of a walk, and its last one where there may be more behind it."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "most": most}
    entries = _entries(wanted, values)
    bounds = _bounds(wanted, after, values)
    walks = " UNION ALL ".join(
        f"(SELECT * FROM deliveries WHERE tenant_id = :tenant_id AND {entry} {bounds}"  # noqa: S608  (constants and names of parameters)
        f" ORDER BY {_ORDER} LIMIT :most)"
        for entry in entries
    )
    conditions = _conditions(wanted, values)
    statement = (
        f"SELECT {_COLUMNS}, w.number, w.matches FROM (SELECT u.*,"  # noqa: S608  (likewise)
        f" row_number() OVER (ORDER BY {_ORDER}) AS number, ({conditions}) AS matches"
        f" FROM ({walks}) u ORDER BY {_ORDER} LIMIT :most) w {_DESTINATION}"
        " WHERE w.matches OR w.number = :most ORDER BY w.number"
    )
    return list(connection.execute(text(statement), values))


def _entries(wanted: DeliveryFilter, values: dict[str, Any]) -> list[str]:
    """Return the conditions by which the index is entered; each is a walk of its own."""
    destination = ""
    if wanted.destination_id is not None:
        values["destination_id"] = wanted.destination_id
        destination = " AND destination_id = :destination_id"
    if wanted.document_id is not None:
        values["document_id"] = wanted.document_id
        return [f"document_id = :document_id{destination}"]
    if wanted.batch_id is not None:
        values["batch_id"] = wanted.batch_id
        return [f"batch_id = :batch_id{destination}"]
    states = {state for name in wanted.states for state in _STATES[name]}
    if states and states <= _UNDELIVERED:
        # Literally, so that the planner sees that the partial index has them.
        return [f"state = '{state}'{destination}" for state in sorted(states)]
    return [f"true{destination}"]


def _bounds(wanted: DeliveryFilter, after: DeliveryPlace | None, values: dict[str, Any]) -> str:
    values["first_seq"] = 0 if wanted.since is None else seq_of(wanted.since)
    values["end_seq"] = MAX_SEQ if wanted.until is None else seq_of(wanted.until)
    bounds = "AND seq >= :first_seq AND seq < :end_seq"
    if wanted.seq is not None:
        values["seq"] = wanted.seq
        bounds += " AND seq = :seq"
    if after is None:
        return bounds
    values |= {f"after_{name}": value for name, value in after._asdict().items()}
    return (
        f"{bounds} AND seq <= :after_seq AND (seq, document_id, destination_id, generation)"
        " < (:after_seq, CAST(:after_document_id AS uuid), CAST(:after_destination_id AS uuid),"
        " CAST(:after_generation AS smallint))"
    )


def _conditions(wanted: DeliveryFilter, values: dict[str, Any]) -> str:
    conditions = ["true"]
    if wanted.states:
        plain = sorted({s for name in wanted.states if name != "retrying" for s in _STATES[name]})
        values["states"] = plain
        retrying = " OR (state = 'pending' AND attempts > 0)" if "retrying" in wanted.states else ""
        conditions.append(f"(state = ANY(:states){retrying})")
    if wanted.batch_id is not None:
        values["batch_id"] = wanted.batch_id
        conditions.append("batch_id = :batch_id")
    if wanted.generation is not None:
        values["generation"] = wanted.generation
        conditions.append("generation = :generation")
    if wanted.status is not None:
        values["status"] = wanted.status
        conditions.append("last_status = :status")
    if wanted.error is not None:
        values["error"] = wanted.error
        conditions.append("strpos(lower(last_error), lower(:error)) > 0")
    if wanted.ended_before is not None:
        values["ended_before"] = wanted.ended_before
        conditions.append("ended_at < :ended_before")
    return f"COALESCE({' AND '.join(conditions)}, false)"


def seq_of(moment: datetime) -> int:
    """Return the order number of what is accepted at a moment: microseconds since 1970."""
    # Not made UTC first: at the ends of the calendar another zone's moment has no date in it.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _record(row: Row[Any]) -> DeliveryRecord:
    fields = row._asdict()
    fields.pop("number", None)
    fields.pop("matches", None)
    return DeliveryRecord(**fields)
