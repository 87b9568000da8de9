"""Replays: ended deliveries planned anew, one at once, many piece by piece."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, text

from app.domain.deliveries import DeliveryState
from app.domain.delivery_ids import DeliveryPlace, delivery_id, parse_delivery_id
from app.domain.replays import ReplayFacts, why_no_replay
from app.storage import delivery_search, tallies
from app.storage.delivery_search import DeliveryFilter
from app.storage.tallies import Owner

PIECE = 1_000
_FILTER = TypeAdapter(DeliveryFilter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A replay by filter, and how far it is.

    Attributes:
        planned: deliveries that were planned anew.
        skipped: deliveries that the filter found and that could not be: open again, superseded,
            or without their document or destination.
    """

    id: uuid.UUID
    filter: DeliveryFilter
    cursor: DeliveryPlace | None
    planned: int
    skipped: int
    created_at: datetime
    finished_at: datetime | None


_PLACES = (
    "unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]), CAST(:destinations AS uuid[]))"
    " AS r (document_id, seq, destination_id)"
)
_FACTS = text(
    "SELECT r.*, d.generation AS newest_generation, d.state AS newest_state,"  # noqa: S608  (constants only)
    " o.seq IS NOT NULL OR e.id IS NOT NULL AS stored,"
    " COALESCE(o.seq = r.seq, e.id IS NOT NULL) AS current,"
    " s.id IS NULL AS destination_deleted"
    f" FROM {_PLACES} CROSS JOIN LATERAL (SELECT d.generation, d.state FROM deliveries d"
    "  WHERE d.tenant_id = :tenant_id AND d.document_id = r.document_id AND d.seq = r.seq"
    "  AND d.destination_id = r.destination_id ORDER BY d.generation DESC LIMIT 1) d"
    " LEFT JOIN LATERAL (SELECT o.seq FROM documents o"
    "  WHERE o.tenant_id = :tenant_id AND o.id = r.document_id LIMIT 1) o ON true"
    " LEFT JOIN LATERAL (SELECT e.id FROM operational_events e"
    "  WHERE e.tenant_id = :tenant_id AND e.id = r.document_id LIMIT 1) e ON true"
    " LEFT JOIN destinations s ON s.tenant_id = :tenant_id AND s.id = r.destination_id"
    "  AND s.deleted_at IS NULL"
)
# Without its batch: the counts of a batch are those of its first plan.
_PLAN = text(
    "INSERT INTO deliveries (tenant_id, document_id, seq, destination_id, generation, version,"  # noqa: S608  (constants only)
    " reason, rank, event_type, state, due_at, created_at)"
    " SELECT d.tenant_id, d.document_id, d.seq, d.destination_id, d.generation + 1, d.version,"
    "  d.reason, d.rank, d.event_type, 'pending', now(), now()"
    f" FROM (SELECT * FROM {_PLACES} ORDER BY document_id, seq, destination_id) r"
    " CROSS JOIN LATERAL (SELECT * FROM deliveries d WHERE d.tenant_id = :tenant_id"
    "  AND d.document_id = r.document_id AND d.seq = r.seq"
    "  AND d.destination_id = r.destination_id ORDER BY d.generation DESC LIMIT 1) d"
    " WHERE d.state NOT IN ('pending', 'held') AND (CASE WHEN d.event_type IS NULL"
    "  THEN EXISTS (SELECT 1 FROM documents o WHERE o.tenant_id = :tenant_id"
    "   AND o.id = d.document_id AND o.seq = d.seq)"
    "  ELSE EXISTS (SELECT 1 FROM operational_events e WHERE e.tenant_id = :tenant_id"
    "   AND e.id = d.document_id) END)"
    " ON CONFLICT DO NOTHING RETURNING document_id, seq, destination_id, generation"
)
_LOCK_DOCUMENTS = text(
    "SELECT id FROM documents WHERE tenant_id = :tenant_id"
    " AND id = ANY(CAST(:documents AS uuid[])) ORDER BY id FOR SHARE"
)
_LOCK_EVENTS = text(
    "SELECT id FROM operational_events WHERE tenant_id = :tenant_id"
    " AND id = ANY(CAST(:documents AS uuid[])) ORDER BY id FOR SHARE"
)


def facts_of(
    connection: Connection, tenant_id: int, places: Sequence[DeliveryPlace]
) -> dict[DeliveryPlace, ReplayFacts]:
    """Return what is known of deliveries, those that do not exist left out."""
    rows = connection.execute(_FACTS, _parameters(tenant_id, places))
    found = {
        (row.document_id, row.seq, row.destination_id): ReplayFacts(
            newest_generation=row.newest_generation,
            newest_state=DeliveryState(row.newest_state),
            stored=row.stored,
            current=row.current,
            destination_deleted=row.destination_deleted,
        )
        for row in rows
    }
    return {place: found[place[:3]] for place in places if place[:3] in found}


def plan(
    connection: Connection, tenant_id: int, places: Sequence[DeliveryPlace]
) -> list[DeliveryPlace]:
    """Plan deliveries anew, whichever of them may be (``facts_of``); return the new ones.

    Somebody else who plans the same one at this moment wins, or this one does; never both.

    The documents are locked first, as all who plan do, and in the order in which a chunk locks
    them. A newer version, a deletion or retention then waits until these deliveries are there to be
    superseded or cancelled, or to keep the document; without the lock it would not see them, and
    they would stay open beside it. One that was quicker is waited for here, and the plan, a
    statement of its own with a snapshot behind that wait, finds that the document has changed.
    Operational events likewise, which retention removes.
    """
    if not places:
        return []
    values = _parameters(tenant_id, places)
    connection.execute(_LOCK_DOCUMENTS, values)
    connection.execute(_LOCK_EVENTS, values)
    rows = connection.execute(_PLAN, values)
    planned = [DeliveryPlace(*row) for row in rows]
    tally = Counter(Owner(one.destination_id, None) for one in planned)
    tallies.add(connection, tenant_id, [("planned", tally)])
    return planned


def _parameters(tenant_id: int, places: Sequence[DeliveryPlace]) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "documents": [one.document_id for one in places],
        "seqs": [one.seq for one in places],
        "destinations": [one.destination_id for one in places],
    }


# By filter


def create(
    connection: Connection, tenant_id: int, replay_id: uuid.UUID, by: DeliveryFilter
) -> None:
    """Write a replay down; the sweeper does it."""
    connection.execute(
        text(
            "INSERT INTO replays (tenant_id, id, filter) VALUES (:tenant_id, :id,"
            " CAST(:filter AS json))"
        ),
        {"tenant_id": tenant_id, "id": replay_id, "filter": orjson.dumps(asdict(by)).decode()},
    )


def get(connection: Connection, tenant_id: int, replay_id: uuid.UUID) -> ReplayJob | None:
    """Return a replay, or None."""
    row = connection.execute(
        text("SELECT * FROM replays WHERE tenant_id = :tenant_id AND id = :id"),
        {"tenant_id": tenant_id, "id": replay_id},
    ).one_or_none()
    return None if row is None else _job(row._asdict())


def advance(connection: Connection, tenant_id: int, *, piece: int = PIECE) -> ReplayJob | None:
    """Plan the next piece of the oldest unfinished replay; None when there is none.

    One that somebody else is at is passed over.
    """
    row = connection.execute(
        text(
            "SELECT * FROM replays WHERE tenant_id = :tenant_id AND finished_at IS NULL"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        ),
        {"tenant_id": tenant_id},
    ).one_or_none()
    if row is None:
        return None
    job = _job(row._asdict())
    # What this replay plans, and what fails from now on, is none of its business.
    by = replace(job.filter, ended_before=job.created_at)
    page = delivery_search.find(connection, tenant_id, by, limit=piece, after=job.cursor)
    found = [one.place for one in page.items]
    planned = plan(connection, tenant_id, replayable(connection, tenant_id, found))
    connection.execute(
        text(
            "UPDATE replays SET cursor = :cursor, planned = planned + :planned,"
            " skipped = skipped + :skipped,"
            " finished_at = CASE WHEN CAST(:cursor AS text) IS NULL THEN clock_timestamp() END"
            " WHERE tenant_id = :tenant_id AND id = :id"
        ),
        {
            "tenant_id": tenant_id,
            "id": job.id,
            "cursor": page.next and delivery_id(page.next),
            "planned": len(planned),
            "skipped": len(found) - len(planned),
        },
    )
    return get(connection, tenant_id, job.id)


def replayable(
    connection: Connection, tenant_id: int, places: Sequence[DeliveryPlace]
) -> list[DeliveryPlace]:
    """Return those that may be planned anew and are the newest of their version."""
    known = facts_of(connection, tenant_id, places)
    return [
        place
        for place in places
        if (facts := known.get(place)) is not None
        and facts.newest_generation == place.generation
        and why_no_replay(facts) is None
    ]


def _job(row: Mapping[str, Any]) -> ReplayJob:
    return ReplayJob(
        id=row["id"],
        filter=_FILTER.validate_python(row["filter"], strict=False),
        cursor=row["cursor"] and parse_delivery_id(row["cursor"]),
        planned=row["planned"],
        skipped=row["skipped"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
