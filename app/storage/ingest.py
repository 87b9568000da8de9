"""The ingest transaction: its statements, in their order (design 2.2).

receipt → upsert documents → supersede older open deliveries → plan deliveries → counters.
READ COMMITTED, separate statements, locks in key order: documents, then deliveries, then the rest.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from app.domain.routing import Route
from app.storage import (
    batches,
    counters,
    deliveries,
    documents,
    receipts,
    rejected,
    tallies,
    unplanned,
)
from app.storage.batches import BatchDelta
from app.storage.counters import Delta
from app.storage.deliveries import PlannedDelivery
from app.storage.documents import OPTIONAL, Floor, IncomingDocument, Winner
from app.storage.engine import sqlstate
from app.storage.receipts import ChunkCounts
from app.storage.rejected import Rejection
from app.storage.unplanned import Mark

UNSTORABLE_CLASSES = ("22", "54")
"""SQLSTATE: data exception, program limit exceeded. The document is at fault, not the moment."""

Planner = Callable[[IncomingDocument], Iterable[Route] | None]
"""Says where a document goes; called within the transaction, for each one that was stored. None:
that is not known yet, and the document is marked (``app.storage.unplanned``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedChunk:
    """A chunk on its way into the tables: what can be stored, and what was found unstorable."""

    tenant_id: int
    chunk_id: uuid.UUID
    documents: Sequence[IncomingDocument]
    rejections: Sequence[Rejection]
    batch_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the transaction did.

    Attributes:
        counts: of the chunks that had not been applied before.
        destinations: have something to send now.
        unplanned: stored and marked; the caller takes them up now.
    """

    counts: Mapping[uuid.UUID, ChunkCounts]
    destinations: Sequence[uuid.UUID]
    unplanned: Sequence[tuple[IncomingDocument, Mark]] = ()


def apply(
    connection: Connection,
    tenant_id: int,
    chunks: Sequence[ClassifiedChunk],
    planner: Planner,
    *,
    isolate: bool = False,
) -> Applied:
    """Apply chunks together, each at most once ever.

    Args:
        connection: a fresh transaction.
        tenant_id: of all the chunks.
        chunks: together about as much as one full chunk; a transaction is cheaper than many.
        planner: routes for a stored document.
        isolate: find the documents that Postgres refuses, by savepoint and bisection. Without it
            such a document fails the whole transaction: savepoints cost every good chunk two
            round trips.

    Raises:
        sqlalchemy.exc.DBAPIError: see ``is_unstorable`` for the kind that asks for ``isolate``.
    """
    claimed = receipts.claim(connection, tenant_id, sorted(chunk.chunk_id for chunk in chunks))
    chunks = [chunk for chunk in chunks if chunk.chunk_id in claimed]
    if not chunks:
        return Applied(counts={}, destinations=())
    retries = [chunk for chunk in chunks if claimed[chunk.chunk_id]]
    dropped = _dropped(connection, tenant_id, retries)
    incoming = [one for chunk in chunks for one in chunk.documents if one.seq not in dropped]
    written = _write(connection, tenant_id, incoming, isolate=isolate)
    winners, refused = written.winners, written.refused
    buried = documents.bury(connection, tenant_id, [winner.id for winner in winners])
    winners = [winner for winner in winners if winner.id not in buried]
    superseded = deliveries.supersede(connection, tenant_id, winners)
    stored = _as_stored(connection, tenant_id, winners, written.documents)
    plans, undecided = _plan(stored, _batch_of_each(chunks), planner)
    planned = deliveries.plan(connection, tenant_id, plans)
    unplanned.mark(connection, tenant_id, [mark for _, mark in undecided])
    # Behind the documents, as a purge takes them. What fails again comes back.
    if retries:
        rejected.remove(connection, tenant_id, _seqs(retries))
    rejections = _rejections_of_each(chunks, refused, dropped)
    for chunk_id, found in sorted(rejections.items()):
        rejected.reject(connection, tenant_id, chunk_id, found)
    counts = _count(chunks, winners, rejections, plans)
    receipts.complete(connection, tenant_id, counts)
    counters.add(
        connection,
        tenant_id,
        [
            Delta("documents.stored", sum(one.stored for one in counts.values())),
            Delta("documents.stale", sum(one.stale for one in counts.values())),
            Delta("documents.rejected", sum(one.rejected for one in counts.values())),
            Delta("documents.created", written.created),
            Delta("documents.removed", len(buried)),
            *tallies.counter_deltas("planned", planned),
            *tallies.counter_deltas("superseded", superseded),
        ],
    )
    batches.add(
        connection,
        tenant_id,
        [
            *_batch_deltas(chunks, counts),
            *tallies.batch_deltas("planned", planned),
            *tallies.batch_deltas("superseded", superseded),
        ],
    )
    return Applied(
        counts=counts,
        destinations=sorted(tallies.per_destination(planned)),
        unplanned=undecided,
    )


def _dropped(
    connection: Connection, tenant_id: int, retries: Sequence[ClassifiedChunk]
) -> set[int]:
    """Return what somebody let go of while its retry was queued; it counts as stale."""
    seqs = _seqs(retries)
    return set(seqs) - rejected.kept(connection, tenant_id, seqs) if seqs else set()


def _seqs(chunks: Sequence[ClassifiedChunk]) -> list[int]:
    seqs = {one.seq for chunk in chunks for one in chunk.documents}
    return sorted(seqs | {one.seq for chunk in chunks for one in chunk.rejections})


def is_unstorable(error: DBAPIError) -> bool:
    """Tell whether a document is at fault, so that ``apply(isolate=True)`` will find it."""
    # psycopg refuses some values by itself, before Postgres could give a SQLSTATE.
    refused_by_driver = isinstance(error, DataError) and sqlstate(error) is None
    return refused_by_driver or (sqlstate(error) or "").startswith(UNSTORABLE_CLASSES)


@dataclass(slots=True, kw_only=True)
class _Written:
    """What was written of a chunk's documents.

    Attributes:
        winners: of each id the last version that was written.
        documents: as they were given to the table; the winners are among them.
        created: rows that were not there before.
    """

    winners: list[Winner]
    documents: list[IncomingDocument]
    created: int
    refused: list[Rejection]


def _write(
    connection: Connection,
    tenant_id: int,
    incoming: Sequence[IncomingDocument],
    *,
    isolate: bool,
) -> _Written:
    """Write the documents: of ids that come more than once the oldest version first, then the rest.

    The oldest one takes the row, so that nobody can store a version between two of these while it
    is decided what the newest inherits. One statement takes an id once; the versions behind the
    first are one, with what its predecessors had sent and it had not, or come one by one where any
    of them may be refused.
    """
    versions: defaultdict[uuid.UUID, list[IncomingDocument]] = defaultdict(list)
    for document in sorted(incoming, key=lambda one: one.order_key):
        versions[document.id].append(document)
    first = [of_id[0] for of_id in versions.values()]
    winners, refused = _store(connection, first, isolate=isolate)
    written = _Written(
        winners=winners,
        documents=first,
        created=sum(winner.inserted for winner in winners),
        refused=refused,
    )
    repeated = {one: of_id[1:] for one, of_id in versions.items() if len(of_id) > 1}
    if not repeated:
        return written
    # What a deletion overtook must not pass anything on.
    found = [winner for winner in winners if winner.id in repeated]
    buried = documents.bury(connection, tenant_id, [winner.id for winner in found])
    written.winners = [winner for winner in winners if winner.id not in buried]
    written.created -= sum(winner.inserted for winner in found if winner.id in buried)
    if isolate:
        for place in range(max(map(len, repeated.values()))):
            layer = [of_id[place] for of_id in repeated.values() if len(of_id) > place]
            _write_over(connection, written, layer, isolate=True)
        return written
    floors = documents.floors(connection, tenant_id, list(repeated))
    merged = [_merge(of_id, floors.get(one)) for one, of_id in repeated.items()]
    _write_over(connection, written, merged, isolate=False)
    return written


def _write_over(
    connection: Connection,
    written: _Written,
    layer: Sequence[IncomingDocument],
    *,
    isolate: bool,
) -> None:
    """Write newer versions of documents over those that were written before."""
    winners, refused = _store(connection, layer, isolate=isolate)
    replaced = {winner.id for winner in winners}
    written.winners = [one for one in written.winners if one.id not in replaced] + winners
    written.documents += layer
    written.created += sum(winner.inserted for winner in winners)
    written.refused += refused


def _merge(versions: Sequence[IncomingDocument], floor: Floor | None) -> IncomingDocument:
    """Return the newest of versions in order, with what fresh ones before it had sent beyond it.

    One after the other, v1 with topics and v2 without leave v2 with v1's topics; kept in one
    statement they must as well. Versions that are stale against the table pass nothing on.
    """
    merged = versions[-1]
    fresh = [one for one in versions if floor is None or floor.lets_in(one)]
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


def _as_stored(
    connection: Connection,
    tenant_id: int,
    winners: Sequence[Winner],
    incoming: Sequence[IncomingDocument],
) -> list[IncomingDocument]:
    """Return the documents that were stored, updates with the fields that they left as they were.

    Routing an update by what it sent would broadcast the next version of a document for one key.
    """
    inserted = {winner.seq: winner.inserted for winner in winners}
    # What somebody has retried twice is here twice.
    each = {(one.id, one.seq): one for one in incoming}.values()
    new = [one for one in each if inserted.get(one.seq) is True]
    updates = [one for one in each if inserted.get(one.seq) is False]
    if not updates:
        return new
    return new + documents.as_stored(connection, tenant_id, updates)


def _plan(
    stored: Sequence[IncomingDocument], batch_of: Mapping[int, uuid.UUID], planner: Planner
) -> tuple[list[PlannedDelivery], list[tuple[IncomingDocument, Mark]]]:
    plans: list[PlannedDelivery] = []
    undecided: list[tuple[IncomingDocument, Mark]] = []
    for document in stored:
        batch_id = batch_of.get(document.seq)
        routes = planner(document)
        if routes is None:
            mark = Mark(document_id=document.id, seq=document.seq, batch_id=batch_id)
            undecided.append((document, mark))
            continue
        plans += [
            PlannedDelivery(
                document_id=document.id,
                seq=document.seq,
                version=document.version,
                destination_id=route.destination_id,
                reason=route.reason,
                rank=route.rank(document.priority),
                batch_id=batch_id,
            )
            for route in routes
        ]
    return plans, undecided


def _batch_of_each(chunks: Sequence[ClassifiedChunk]) -> dict[int, uuid.UUID]:
    """Return the batch of each document that is part of one, by order number."""
    return {
        document.seq: chunk.batch_id
        for chunk in chunks
        if chunk.batch_id is not None
        for document in chunk.documents
    }


def _rejections_of_each(
    chunks: Sequence[ClassifiedChunk], refused: Sequence[Rejection], dropped: Collection[int]
) -> dict[uuid.UUID, list[Rejection]]:
    """Return the rejections per chunk: those found before, and those that Postgres refused."""
    found = {
        chunk.chunk_id: [one for one in chunk.rejections if one.seq not in dropped]
        for chunk in chunks
    }
    if refused:
        chunk_of = {
            document.seq: chunk.chunk_id for chunk in chunks for document in chunk.documents
        }
        for rejection in refused:
            found[chunk_of[rejection.seq]].append(rejection)
    return found


def _count(
    chunks: Sequence[ClassifiedChunk],
    winners: Sequence[Winner],
    rejections: Mapping[uuid.UUID, Sequence[Rejection]],
    plans: Sequence[PlannedDelivery],
) -> dict[uuid.UUID, ChunkCounts]:
    stored = {(winner.id, winner.seq) for winner in winners}
    planned = Counter(one.seq for one in plans)
    counts = {}
    for chunk in chunks:
        total = len(chunk.documents) + len(chunk.rejections)
        kept = stored.intersection((one.id, one.seq) for one in chunk.documents)
        stored -= kept  # a twin in another chunk is stale
        refused = len(rejections[chunk.chunk_id])
        counts[chunk.chunk_id] = ChunkCounts(
            stored=len(kept),
            stale=total - len(kept) - refused,
            rejected=refused,
            planned=sum(planned[seq] for _, seq in kept),
        )
    return counts


def _batch_deltas(
    chunks: Sequence[ClassifiedChunk], counts: Mapping[uuid.UUID, ChunkCounts]
) -> list[BatchDelta]:
    return [
        BatchDelta(chunk.batch_id, name, getattr(counts[chunk.chunk_id], name))
        for chunk in chunks
        if chunk.batch_id is not None
        for name in (batches.STORED, batches.STALE, batches.REJECTED)
    ]
