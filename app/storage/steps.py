"""Steps: the deliveries that a collector called for, each recorded before anything is sent.

A step, the document of the call and its delivery are one transaction, so that a call exists once
however often the function that makes it is run anew.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.storage import counters, tallies
from app.storage.counters import Delta
from app.storage.deliveries import DeliveryKey
from app.storage.tallies import Owner


class NewStep(NamedTuple):
    """A call: the number that it has in its function, whom it asks, and with what content."""

    number: int
    key: str
    content: str


class Step(NamedTuple):
    """A recorded call.

    Attributes:
        parent: the delivery whose function made it.
        child: the delivery that answers it.
        state: ``open``, ``done`` or ``failed``.
        value: JSON; None where there is none.
        error: why it failed.
    """

    parent: DeliveryKey
    number: int
    key: str
    child: DeliveryKey
    state: str
    value: str | None
    error: str | None


class Begun(NamedTuple):
    """The steps in the order in which they were asked for, and whom to ring.

    Attributes:
        unknown: keys that no destination has; their calls were not recorded.
    """

    steps: dict[int, Step]
    unknown: set[str]
    planned: list[uuid.UUID]


_PARENT = (
    "tenant_id = :tenant_id AND document_id = :document_id AND seq = :seq"
    " AND destination_id = :destination_id AND generation = :generation"
)
_RECORDED = text(
    "SELECT number, key, child_document_id, child_seq, child_destination_id, state,"  # noqa: S608  (constants only)
    f" value::text AS value, error FROM delivery_steps WHERE {_PARENT} AND number = ANY(:numbers)"
)
_INSERT_STEPS = text(
    "INSERT INTO delivery_steps (tenant_id, document_id, seq, destination_id, generation, number,"
    " key, child_document_id, child_seq, child_destination_id, state)"
    " SELECT :tenant_id, :document_id, :seq, :destination_id, :generation, n.*,"
    # Right behind the caller's: in the usual order a call comes before what was accepted later, so
    # that what has begun is finished before more is begun.
    "  CAST(:seq AS bigint) + n.number, d.id, 'open'"
    " FROM unnest(CAST(:numbers AS integer[]), CAST(:keys AS text[]), CAST(:children AS uuid[]))"
    "  AS n (number, key, child)"
    " JOIN destinations d ON d.tenant_id = :tenant_id AND d.key = n.key AND d.deleted_at IS NULL"
    " ORDER BY n.number ON CONFLICT DO NOTHING RETURNING number"
)
_INSERT_DOCUMENTS = text(
    "INSERT INTO documents (tenant_id, id, version, seq, content, keys, delivery, created_at,"  # noqa: S608  (constants only)
    " updated_at)"
    " SELECT s.tenant_id, s.child_document_id, 0, s.child_seq, n.content,"
    "  jsonb_build_array(s.key), 'key', now(), now()"
    " FROM unnest(CAST(:numbers AS integer[]), CAST(:contents AS text[])) AS n (number, content)"
    f" JOIN delivery_steps s ON {_PARENT} AND s.number = n.number"
    " WHERE s.number = ANY(:mine) ORDER BY s.child_document_id"
)
_PLAN = text(
    "INSERT INTO deliveries (tenant_id, document_id, seq, version, destination_id, reason, state,"  # noqa: S608  (constants only)
    " due_at, created_at)"
    " SELECT tenant_id, child_document_id, child_seq, 0, child_destination_id,"
    "  'called by ' || CAST(:caller AS text) || ' as its step ' || number, 'pending', now(), now()"
    f" FROM delivery_steps WHERE {_PARENT} AND number = ANY(:mine) ORDER BY child_document_id"
    " RETURNING destination_id"
)


def begin(
    connection: Connection, parent: DeliveryKey, caller: str, calls: Sequence[NewStep]
) -> Begun:
    """Record calls and plan their deliveries, but for those that are recorded already.

    Args:
        connection: within a transaction; durable, because the function relies on it.
        parent: the delivery whose function calls.
        caller: the key of its destination.
        calls: in the order of their numbers.
    """
    values = {
        **parent._asdict(),
        "caller": caller,
        "numbers": [one.number for one in calls],
        "keys": [one.key for one in calls],
        "contents": [one.content for one in calls],
        "children": [_child_id(parent, one.number) for one in calls],
    }
    steps = _recorded(connection, parent, values)
    planned: list[uuid.UUID] = []
    if len(steps) < len(calls):
        mine = [row.number for row in connection.execute(_INSERT_STEPS, values)]
        if mine:
            made = connection.execute(_INSERT_DOCUMENTS, {**values, "mine": mine}).rowcount
            counters.add(connection, parent.tenant_id, [Delta("documents.created", made)])
            rows = connection.execute(_PLAN, {**values, "mine": mine})
            planned = [row.destination_id for row in rows]
            tally = Counter(Owner(one, None) for one in planned)
            tallies.add(connection, parent.tenant_id, [("planned", tally)])
        steps = _recorded(connection, parent, values)
    unknown = {one.key for one in calls if one.number not in steps}
    return Begun(steps, unknown, sorted(set(planned)))


def _recorded(
    connection: Connection, parent: DeliveryKey, values: dict[str, object]
) -> dict[int, Step]:
    return {
        row.number: Step(
            parent=parent,
            number=row.number,
            key=row.key,
            child=DeliveryKey(
                parent.tenant_id,
                row.child_document_id,
                row.child_seq,
                row.child_destination_id,
                0,
            ),
            state=row.state,
            value=row.value,
            error=row.error,
        )
        for row in connection.execute(_RECORDED, values)
    }


def _child_id(parent: DeliveryKey, number: int) -> uuid.UUID:
    """Return the id of a call's document: the same whoever makes the call."""
    place = f"{parent.seq}.{parent.destination_id}.{parent.generation}.{number}"
    return uuid.uuid5(parent.document_id, place)


_ENDED = text(
    "SELECT n.place, d.state, d.last_error, r.value::text AS value"
    " FROM (SELECT * FROM unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]),"
    "  CAST(:destinations AS uuid[])) WITH ORDINALITY"
    "  AS n (document_id, seq, destination_id, place)) n"
    " LEFT JOIN LATERAL (SELECT d.* FROM deliveries d WHERE d.tenant_id = :tenant_id"
    "  AND d.document_id = n.document_id AND d.seq = n.seq"
    "  AND d.destination_id = n.destination_id AND d.generation = 0 LIMIT 1) d ON true"
    " LEFT JOIN delivery_results r ON r.tenant_id = d.tenant_id AND r.document_id = d.document_id"
    "  AND r.seq = d.seq AND r.destination_id = d.destination_id AND r.generation = d.generation"
    # None at all: it was purged with its document.
    " WHERE d.state IS NULL OR d.state NOT IN ('pending', 'held')"
)
_SETTLE = text(
    f"UPDATE delivery_steps SET state = :state, value = CAST(:value AS json), error = :error,"  # noqa: S608  (constants only)
    f" ended_at = now() WHERE {_PARENT} AND number = :number AND state = 'open'"
)


def settle(connection: Connection, tenant_id: int, waiting: Sequence[Step]) -> list[Step]:
    """Record what became of calls whose deliveries have ended; return those."""
    rows = connection.execute(
        _ENDED,
        {
            "tenant_id": tenant_id,
            "documents": [one.child.document_id for one in waiting],
            "seqs": [one.child.seq for one in waiting],
            "destinations": [one.child.destination_id for one in waiting],
        },
    )
    ended = sorted(
        (_ended(waiting[row.place - 1], row.state, row.value, row.last_error) for row in rows),
        key=lambda one: (one.parent, one.number),
    )
    if ended:
        connection.execute(
            _SETTLE,
            [
                {
                    **one.parent._asdict(),
                    "number": one.number,
                    "state": one.state,
                    "value": one.value,
                    "error": one.error,
                }
                for one in ended
            ],
        )
    return ended


def _ended(step: Step, state: str | None, value: str | None, error: str | None) -> Step:
    # A delivered one with an error has a value that was too large to be kept.
    if state == "delivered" and error is None:
        return step._replace(state="done", value=value)
    return step._replace(state="failed", error=error or f"its delivery was {state or 'purged'}")


_PARK = text(
    "UPDATE deliveries d SET attempts = r.attempts,"
    " due_at = clock_timestamp() + make_interval(secs => :seconds)"
    " FROM (SELECT d.ctid AS place, r.attempts FROM unnest(CAST(:documents AS uuid[]),"
    "   CAST(:seqs AS bigint[]), CAST(:generations AS smallint[]), CAST(:attempts AS smallint[]))"
    "   AS r (document_id, seq, generation, attempts)"
    "  JOIN deliveries d ON d.tenant_id = :tenant_id AND d.document_id = r.document_id"
    "   AND d.seq = r.seq AND d.destination_id = :destination_id AND d.generation = r.generation"
    "  WHERE d.state IN ('pending', 'held')"
    "  ORDER BY d.document_id, d.seq, d.destination_id, d.generation FOR UPDATE OF d) r"
    " WHERE d.ctid = r.place"
)


def park(
    connection: Connection,
    rows: Sequence[tuple[DeliveryKey, int]],
    *,
    seconds: float,
) -> None:
    """Let deliveries of one destination be due later: their functions wait for calls.

    Nothing would send them meanwhile, because the lease's holder knows them; but he would read them
    over and over, before those that are due.

    Args:
        connection: within a transaction, under a lease that is current.
        rows: each with its number of attempts.
        seconds: from now.
    """
    if not rows:
        return
    first = rows[0][0]
    connection.execute(
        _PARK,
        {
            "tenant_id": first.tenant_id,
            "destination_id": first.destination_id,
            "documents": [key.document_id for key, _ in rows],
            "seqs": [key.seq for key, _ in rows],
            "generations": [key.generation for key, _ in rows],
            "attempts": [attempts for _, attempts in rows],
            "seconds": seconds,
        },
    )
