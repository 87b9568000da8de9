"""The statements that run all the time, on tables with much in them: their plans and their time.

Each is had by calling the function that the service calls, so what is explained is what runs. A
test asserts that none of them reads a large table from end to end; ``python -m bench statements``
measures them with 5 million documents.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from app.domain.deliveries import DeliveryState
from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.predictions import Prediction
from app.storage import (
    batches,
    counters,
    deliveries,
    destinations,
    documents,
    leases,
    receipts,
    ticks,
)
from app.storage.deliveries import DeliveryKey, DeliveryResult, PlannedDelivery
from app.storage.documents import IncomingDocument, Winner
from app.storage.engine import transaction
from app.storage.leases import Lease
from app.storage.receipts import ChunkCounts
from bench import rows

CHUNK = 500
PAGE = 200
DESTINATIONS = 100
BACKLOG = 1_000_000
"""Deliveries that wait for a destination, at most."""
TENANT = DEFAULT_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Large tables, and what of them the statements ask for.

    Attributes:
        stored: ids and order numbers of a chunk of stored documents, with open deliveries.
        busy: a destination that all those deliveries wait for, with a lease.
        parked: a destination whose deliveries are all to be tried again tomorrow.
        quiet: a destination whose deliveries have all been delivered.
    """

    stored: Sequence[tuple[uuid.UUID, int]]
    busy: Lease
    parked: uuid.UUID
    quiet: uuid.UUID


def make_world(engine: Engine, database_url: str, count: int, *, tidy: bool = True) -> World:
    """Fill empty tables: so many documents, delivered to three destinations among 100.

    Two large backlogs make a planner expect a match everywhere; that is when it errs.

    Args:
        engine: on the database.
        database_url: of it.
        count: documents.
        tidy: vacuum and analyse. Without, as in a young installation, the planner knows sizes only.
    """
    rows.make_documents(database_url, count)
    ids = [_destination(engine, f"bench-{number}") for number in range(DESTINATIONS)]
    busy, parked, quiet = ids[10], ids[50], ids[90]
    backlog = min(count, BACKLOG)
    rows.make_deliveries(database_url, busy, backlog)
    rows.make_deliveries(database_url, parked, backlog, attempts=1, parked=True)
    rows.make_deliveries(database_url, quiet, backlog // 10, state="delivered", attempts=1)
    rows.make_traces(database_url, backlog)
    if tidy:
        rows.tidy(database_url)
    with transaction(engine) as connection:
        lease = leases.acquire(connection, TENANT, busy, "bench", 3600)
        assert lease is not None  # noqa: S101  (nobody else wants it)
        # From all over the backlog, as updates are.
        stored = connection.execute(
            text(
                "SELECT document_id AS id, seq FROM deliveries WHERE destination_id = :busy"
                " ORDER BY md5(document_id::text) LIMIT :chunk"
            ),
            {"busy": busy, "chunk": CHUNK},
        )
        return World(
            stored=[(row.id, row.seq) for row in stored], busy=lease, parked=parked, quiet=quiet
        )


Call = Callable[[Connection, World], object]


def _upsert_new(connection: Connection, world: World) -> object:  # noqa: ARG001  (as the others)
    return documents.upsert(connection, [_document(uuid.uuid4()) for _ in range(CHUNK)])


def _upsert_stored(connection: Connection, world: World) -> object:
    return documents.upsert(connection, [_document(one) for one, _ in world.stored])


def _supersede(connection: Connection, world: World) -> object:
    winners = [Winner(one, seq + 1, inserted=False) for one, seq in world.stored]
    return deliveries.supersede(connection, TENANT, winners)


def _plan(connection: Connection, world: World) -> object:
    planned = [
        PlannedDelivery(
            document_id=one,
            seq=seq + 1,
            version=0,
            destination_id=world.busy.destination_id,
            reason="broadcast",
        )
        for one, seq in world.stored
    ]
    return deliveries.plan(connection, TENANT, planned)


def _read(connection: Connection, destination_id: uuid.UUID, after_seq: int) -> object:
    return deliveries.read_due(
        connection,
        TENANT,
        destination_id,
        after_seq=after_seq,
        max_rows=PAGE,
        max_bytes=1 << 20,
    )


def _read_behind(connection: Connection, world: World) -> object:
    middle = sorted(seq for _, seq in world.stored)[len(world.stored) // 2]
    return _read(connection, world.busy.destination_id, middle)


def _record(connection: Connection, world: World) -> object:
    now = datetime.now(UTC)
    results = [
        DeliveryResult(
            key=key,
            state=DeliveryState.DELIVERED,
            attempts=1,
            due_at=None,
            status=200,
            error=None,
            finished_at=now,
        )
        for key in _keys(world)[:100]
    ]
    return deliveries.record(connection, world.busy, results)


def _fold(connection: Connection, world: World) -> object:
    deltas = [counters.Delta("deliveries.delivered", 1, world.quiet)] * CHUNK
    counters.add(connection, TENANT, deltas)
    return counters.fold(connection, TENANT)


def _fold_batches(connection: Connection, world: World) -> object:  # noqa: ARG001  (as the others)
    batches.add(connection, TENANT, [batches.BatchDelta(uuid.uuid4(), "stored", 1)] * CHUNK)
    return batches.fold(connection, TENANT)


def _receipt(connection: Connection, world: World) -> object:  # noqa: ARG001  (as the others)
    chunk_id = uuid.uuid4()
    receipts.begin_tries(connection, TENANT, [chunk_id])
    receipts.claim(connection, TENANT, [chunk_id])
    counts = ChunkCounts(stored=CHUNK, stale=0, rejected=0, planned=0)
    receipts.complete(connection, TENANT, {chunk_id: counts})
    return counts


def _cancel(connection: Connection, world: World) -> object:
    destinations.soft_delete(connection, TENANT, world.parked)
    return deliveries.cancel_of_deleted_destinations(connection, TENANT)


STATEMENTS: Mapping[str, Call] = {
    "upsert of 500 new documents": _upsert_new,
    "upsert of 500 stored documents": _upsert_stored,
    "bury": lambda connection, world: documents.bury(
        connection, TENANT, [one for one, _ in world.stored]
    ),
    "order keys of 500 documents": lambda connection, world: documents.order_keys(
        connection, TENANT, [one for one, _ in world.stored]
    ),
    "GET of a document": lambda connection, world: documents.get(
        connection, TENANT, world.stored[0][0]
    ),
    "deletion of a document": lambda connection, world: documents.delete(
        connection, TENANT, world.stored[0][0]
    ),
    "receipt": _receipt,
    "supersede 500 documents": _supersede,
    "plan 500 deliveries": _plan,
    "read what is due, from the beginning": lambda connection, world: _read(
        connection, world.busy.destination_id, 0
    ),
    "read what is due, from the middle": _read_behind,
    "read what is due, all parked": lambda connection, world: _read(connection, world.parked, 0),
    "anything due? yes": lambda connection, world: deliveries.has_due(
        connection, TENANT, world.busy.destination_id
    ),
    "anything due? all parked": lambda connection, world: deliveries.has_due(
        connection, TENANT, world.parked
    ),
    "anything due? nothing": lambda connection, world: deliveries.has_due(
        connection, TENANT, world.quiet
    ),
    "record 100 results": _record,
    "mark 100 attempts": lambda connection, world: deliveries.mark_attempts(
        connection, world.busy, _keys(world)[:100]
    ),
    "destinations that wait": lambda connection, _: ticks.waiting_destinations(connection, TENANT),
    "cancel a deleted destination's": _cancel,
    "fold 500 counters": _fold,
    "fold 500 counts of batches": _fold_batches,
    "counts of a batch": lambda connection, _: batches.counts(connection, TENANT, uuid.uuid4()),
}


@dataclass(frozen=True, slots=True)
class Scan:
    """A node that reads a table or an index.

    Attributes:
        kind: "Seq Scan", "Index Scan", …
        source: the index where there is one, else the table.
        condition: by which the index is entered, as Postgres writes it.
    """

    kind: str
    source: str
    condition: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A statement and how Postgres goes about it."""

    statement: str
    plan: Mapping[str, Any]

    def scans(self) -> Iterator[Scan]:
        """Yield every node that reads a table or an index."""
        waiting = [self.plan]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            source = node.get("Index Name") or node.get("Relation Name")
            if source and "Scan" in node["Node Type"]:
                yield Scan(node["Node Type"], source, node.get("Index Cond", ""))


def explain(engine: Engine, call: Call, world: World) -> list[Explained]:
    """Return the plans of everything that a call runs, with the values it gives; undone after."""
    with transaction(engine) as connection:
        with _noted(connection) as statements:
            call(connection, world)
        explained = []
        for statement, values in statements:
            answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
            explained.append(Explained(statement, answer.scalar_one()[0]["Plan"]))
        connection.rollback()
        return explained


def milliseconds(engine: Engine, call: Call, world: World) -> float:
    """Return how long a call takes, undone after."""
    with transaction(engine) as connection:
        began_at = time.perf_counter()
        call(connection, world)
        took = time.perf_counter() - began_at
        connection.rollback()
    return took * 1000


@contextmanager
def _noted(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """Note what runs on a connection, as the driver is given it."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements.append((statement, values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(connection, "before_cursor_execute", note)


def _destination(engine: Engine, key: str) -> uuid.UUID:
    given = DestinationInput(key=key, url=f"http://example.com/{key}")
    made = make_destination(TENANT, given, now=datetime.now(UTC))
    with transaction(engine) as connection:
        destinations.create(connection, made)
    return made.id


def _document(document_id: uuid.UUID) -> IncomingDocument:
    seq = time.time_ns() // 1000
    return IncomingDocument(
        tenant_id=TENANT,
        id=document_id,
        version=0,
        seq=seq,
        content="a short text",
        topics=None,
        keys=None,
        delivery=None,
        priority=None,
        attributes=None,
        created_at=accepted_at(seq),
        updated_at=accepted_at(seq),
        prediction=Prediction("sci.space", 0.9, "bench"),
    )


def _keys(world: World) -> list[DeliveryKey]:
    return [
        DeliveryKey(TENANT, one, seq, world.busy.destination_id, 0) for one, seq in world.stored
    ]
