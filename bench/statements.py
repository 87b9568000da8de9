"""The statements that run all the time, each had by calling the function that the service calls.

So what is explained is what runs. A test asserts that none of them reads a large table from end to
end; ``python -m bench growth`` measures them with 5 million documents.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.deliveries import DeliveryState
from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import accepted_at
from app.domain.predictions import Prediction
from app.domain.retention import Kept
from app.storage import (
    attempts,
    batches,
    counters,
    deliveries,
    delivery_errors,
    delivery_search,
    destinations,
    documents,
    purging,
    receipts,
    rejected,
    removal,
    replays,
    retention,
    ticks,
)
from app.storage.deliveries import DeliveryKey, DeliveryResult, PlannedDelivery
from app.storage.delivery_search import DeliveryFilter
from app.storage.documents import IncomingDocument, Winner
from app.storage.due import Position, Selection, has_due, read_due
from app.storage.receipts import ChunkCounts
from bench.explain import Call
from bench.world import CHUNK, TENANT, World

PAGE = 200


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
    return read_due(
        connection,
        TENANT,
        destination_id,
        selection=Selection(after=Position(0, after_seq)),
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


def _retain(kept: Kept) -> Call:
    """Return a piece of retention, of rows that lie far behind any limit."""
    return lambda connection, _: retention.STEPS[kept](connection, TENANT, datetime.now(UTC), None)


def _remove(connection: Connection, world: World) -> object:
    ids = [one for one, _ in world.stored]
    return removal.remove_deliveries_of(
        connection, TENANT, ids, last_seq=time.time_ns(), limit=CHUNK
    )


RETENTION: Mapping[str, Call] = {
    **{f"retention of {kept}": _retain(kept) for kept in Kept},
    "remove the deliveries of 500 documents": _remove,
    "purge a document": lambda connection, world: purging.purge(
        connection, TENANT, world.stored[0][0], time.time_ns() // 1000
    ),
    "repeat a purge": lambda connection, _: purging.repeat(
        connection, TENANT, datetime.now(UTC), None
    ),
}
"""What the sweeper removes, a piece each, and purges."""

STATEMENTS: Mapping[str, Call] = {
    **RETENTION,
    "upsert of 500 new documents": _upsert_new,
    "upsert of 500 stored documents": _upsert_stored,
    "bury": lambda connection, world: documents.bury(
        connection, TENANT, [one for one, _ in world.stored]
    ),
    "order keys of 500 documents": lambda connection, world: documents.floors(
        connection, TENANT, [one for one, _ in world.stored]
    ),
    "GET of a document": lambda connection, world: documents.get(
        connection, TENANT, world.stored[0][0]
    ),
    "deletion of a document": lambda connection, world: documents.delete(
        connection, TENANT, world.stored[0][0]
    ),
    "why a document was set aside": lambda connection, world: rejected.reason_of(
        connection, TENANT, world.stored[0][0]
    ),
    "what of a document was set aside": lambda connection, world: rejected.list_page(
        connection, TENANT, limit=PAGE, document_id=world.stored[0][0]
    ),
    "page of what was set aside": lambda connection, _: rejected.list_page(
        connection, TENANT, limit=PAGE
    ),
    "receipt": _receipt,
    "supersede 500 documents": _supersede,
    "plan 500 deliveries": _plan,
    "read what is due, from the beginning": lambda connection, world: _read(
        connection, world.busy.destination_id, 0
    ),
    "read what is due, from the middle": _read_behind,
    "read what is due, all parked": lambda connection, world: _read(connection, world.parked, 0),
    "anything due? yes": lambda connection, world: has_due(
        connection, TENANT, world.busy.destination_id
    ),
    "anything due? all parked": lambda connection, world: has_due(connection, TENANT, world.parked),
    "anything due? nothing": lambda connection, world: has_due(connection, TENANT, world.quiet),
    "record 100 results": _record,
    "mark 100 attempts": lambda connection, world: deliveries.mark_attempts(
        connection, world.busy, _keys(world)[:100]
    ),
    "destinations that wait": lambda connection, _: ticks.waiting_destinations(connection, TENANT),
    "cancel a deleted destination's": _cancel,
    "fold 500 counters": _fold,
    "fold 500 counts of batches": _fold_batches,
    "find what failed": lambda connection, _: _find(connection, states=("failed",)),
    "find what was not delivered": lambda connection, _: _find(connection, states=("undelivered",)),
    "find the deliveries of a destination": lambda connection, world: _find(
        connection, destination_id=world.quiet
    ),
    "find the deliveries of a document": lambda connection, world: _find(
        connection, document_id=world.stored[0][0]
    ),
    "group errors": lambda connection, _: delivery_errors.groups(connection, TENANT),
    "plan 500 replays": lambda connection, world: replays.plan(
        connection,
        TENANT,
        replays.replayable(
            connection,
            TENANT,
            [DeliveryPlace(*key[1:]) for key in _keys(world)],
        ),
    ),
    "attempts of a delivery": lambda connection, world: attempts.of_delivery(
        connection, TENANT, DeliveryPlace(*_keys(world)[0][1:])
    ),
    "counts of a batch": lambda connection, _: batches.counts(connection, TENANT, uuid.uuid4()),
}


def _find(connection: Connection, **by: Any) -> object:
    return delivery_search.find(connection, TENANT, DeliveryFilter(**by), limit=100)


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
