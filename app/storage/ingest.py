"""The ingest transaction: its statements, in their order (design 2.2).

receipt → upsert documents → supersede older open deliveries → plan deliveries → counters.
READ COMMITTED, separate statements, locks in key order: documents, then deliveries, then the rest.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from app.domain.routing import Route
from app.storage import counters, deliveries, documents, receipts, rejected
from app.storage.counters import Delta
from app.storage.deliveries import PlannedDelivery
from app.storage.documents import OPTIONAL, IncomingDocument, Winner
from app.storage.engine import sqlstate
from app.storage.receipts import ChunkCounts
from app.storage.rejected import Rejection

UNSTORABLE_CLASSES = ("22", "54")
"""SQLSTATE: data exception, program limit exceeded. The document is at fault, not the moment."""

Planner = Callable[[IncomingDocument], Iterable[Route]]
"""Says where a document goes; called within the transaction, for each one that was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A classified chunk: what can be stored, and what was found unstorable before."""

    tenant_id: int
    chunk_id: uuid.UUID
    documents: Sequence[IncomingDocument]
    rejections: Sequence[Rejection]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the transaction did; ``destinations`` have something to send now."""

    counts: ChunkCounts
    destinations: Sequence[uuid.UUID]


def apply(
    connection: Connection,
    batch: Batch,
    planner: Planner,
    *,
    isolate: bool = False,
) -> Applied | None:
    """Apply a chunk; None when it had been applied before.

    Args:
        connection: a fresh transaction.
        batch: the chunk.
        planner: routes for a stored document.
        isolate: find the documents that Postgres refuses, by savepoint and bisection. Without it
            such a document fails the whole transaction: savepoints cost every good chunk two
            round trips.

    Raises:
        sqlalchemy.exc.DBAPIError: see ``is_unstorable`` for the kind that asks for ``isolate``.
    """
    tenant_id = batch.tenant_id
    if not receipts.claim(connection, tenant_id, batch.chunk_id):
        return None
    newest = newest_per_id(connection, tenant_id, batch.documents)
    winners, refused = _store(connection, newest, isolate=isolate)
    buried = documents.bury(connection, tenant_id, [winner.id for winner in winners])
    winners = [winner for winner in winners if winner.id not in buried]
    superseded = deliveries.supersede(connection, tenant_id, winners)
    planned = deliveries.plan(connection, tenant_id, _plan(winners, newest, planner))
    rejections = [*batch.rejections, *refused]
    rejected.reject(connection, tenant_id, batch.chunk_id, rejections)
    total = len(batch.documents) + len(batch.rejections)
    counts = ChunkCounts(
        stored=len(winners),
        stale=total - len(winners) - len(rejections),
        rejected=len(rejections),
        planned=planned.total(),
    )
    receipts.complete(connection, tenant_id, batch.chunk_id, counts)
    counters.add(
        connection,
        tenant_id,
        [
            Delta("documents.stored", counts.stored),
            Delta("documents.stale", counts.stale),
            Delta("documents.rejected", counts.rejected),
            *(Delta("deliveries.planned", n, one) for one, n in sorted(planned.items())),
            *(Delta("deliveries.superseded", n, one) for one, n in sorted(superseded.items())),
        ],
    )
    return Applied(counts=counts, destinations=sorted(planned))


def is_unstorable(error: DBAPIError) -> bool:
    """Tell whether a document is at fault, so that ``apply(isolate=True)`` will find it."""
    # psycopg refuses some values by itself, before Postgres could give a SQLSTATE.
    refused_by_driver = isinstance(error, DataError) and sqlstate(error) is None
    return refused_by_driver or (sqlstate(error) or "").startswith(UNSTORABLE_CLASSES)


def newest_per_id(
    connection: Connection, tenant_id: int, incoming: Sequence[IncomingDocument]
) -> list[IncomingDocument]:
    """Keep only the highest order key per id, with what its predecessors had sent and it had not.

    One after the other, v1 with topics and v2 without leave v2 with v1's topics; kept in one
    statement they must as well. Versions that are stale against the table pass nothing on.
    """
    by_id: defaultdict[uuid.UUID, list[IncomingDocument]] = defaultdict(list)
    for document in incoming:
        by_id[document.id].append(document)
    repeated = [one for one, versions in by_id.items() if len(versions) > 1]
    stored = documents.order_keys(connection, tenant_id, repeated) if repeated else {}
    return [
        versions[0] if len(versions) == 1 else _merge(versions, stored.get(one))
        for one, versions in by_id.items()
    ]


def _merge(versions: list[IncomingDocument], stored: tuple[int, int] | None) -> IncomingDocument:
    versions.sort(key=lambda one: one.order_key)
    merged = versions[-1]
    fresh = [one for one in versions if stored is None or one.order_key > stored]
    for older in reversed(fresh[:-1]):
        inherited = {
            name: getattr(older, name) for name in OPTIONAL if getattr(merged, name) is None
        }
        merged = replace(merged, created_at=older.created_at, **inherited)
    return merged


def _store(
    connection: Connection, incoming: Sequence[IncomingDocument], *, isolate: bool
) -> tuple[list[Winner], list[Rejection]]:
    if not isolate:
        return documents.upsert(connection, incoming), []
    try:
        with connection.begin_nested():
            return documents.upsert(connection, incoming), []
    except DBAPIError as error:
        if not is_unstorable(error):
            raise
        if len(incoming) == 1:
            return [], [_rejection(incoming[0], error)]
    # In key order, so that the halves together still take their locks in key order.
    ordered = sorted(incoming, key=lambda one: one.id)
    middle = len(ordered) // 2
    first, refused_first = _store(connection, ordered[:middle], isolate=True)
    second, refused_second = _store(connection, ordered[middle:], isolate=True)
    return first + second, refused_first + refused_second


def _rejection(document: IncomingDocument, error: DBAPIError) -> Rejection:
    reason = str(error.orig).strip().splitlines()[0]
    return Rejection(
        seq=document.seq,
        document_id=document.id,
        reason=f"Postgres refused it ({sqlstate(error) or 'no SQLSTATE'}): {reason}",
        body=document.as_sent(),
    )


def _plan(
    winners: Sequence[Winner], incoming: Sequence[IncomingDocument], planner: Planner
) -> list[PlannedDelivery]:
    stored = {winner.id for winner in winners}
    return [
        PlannedDelivery(
            document_id=document.id,
            seq=document.seq,
            version=document.version,
            destination_id=route.destination_id,
            reason=route.reason,
        )
        for document in incoming
        if document.id in stored
        for route in planner(document)
    ]
