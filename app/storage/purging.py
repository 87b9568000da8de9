"""Purging: one document is removed everywhere, with all that is left of its deliveries.

The tombstone says up to which order number: whatever was accepted before the purge stays out, of
any version, and whatever comes later is a new document. Something may still be on its way at that
moment: a chunk in the queue, a request in flight whose answer is then recorded. So the purge is
repeated by the sweeper until nothing can come any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection, text

from app.domain.documents import MAX_SEQ
from app.storage import counters, removal
from app.storage.counters import Delta
from app.storage.retention_walks import Cursor, Piece

DELIVERIES = 20_000
"""Removed by a statement."""
PURGED = "purged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many rows were removed, per kind.

    Attributes:
        documents: the document, and those that collectors called for while they had it.
        dead_letters: from which it was taken; the other documents of each stay.
    """

    documents: int = 0
    deliveries: int = 0
    attempts: int = 0
    rejected: int = 0
    dead_letters: int = 0


def purge(
    connection: Connection, tenant_id: int, document_id: uuid.UUID, accepted_until: int
) -> Purged:
    """Remove a document as it was accepted up to an order number; leave a tombstone.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        document_id: stored or not; it may be queued.
        accepted_until: the last order number that was given when the purge was asked for.
    """
    ids = _with_called_for(connection, tenant_id, document_id)
    stored = connection.execute(_LOCK_DOCUMENTS, {"tenant_id": tenant_id, "ids": ids}).all()
    keys = {row.id: (row.version, row.seq) for row in stored}
    for one in ids:
        version, seq = keys.get(one, (0, accepted_until))
        connection.execute(
            _BURY,
            {
                "tenant_id": tenant_id,
                "document_id": one,
                "version": version,
                "seq": seq,
                "purged_seq": max(seq, accepted_until),
            },
        )
    last_seq = max([accepted_until, *(seq for _, seq in keys.values())])
    purged = _remove(connection, tenant_id, ids, last_seq)
    # Behind the deliveries, with which none can be told any more.
    connection.execute(_EVENTS, {"tenant_id": tenant_id, "ids": ids})
    return purged


def repeat(
    connection: Connection, tenant_id: int, settled_before: datetime, cursor: Cursor | None
) -> Piece:
    """Purge again one document that was purged lately, for what came in between.

    Args:
        connection: within a transaction.
        tenant_id: whose.
        settled_before: nothing of a purge before then can come any more; its repeats end.
        cursor: behind the document that came before.
    """
    row = connection.execute(
        text(
            "SELECT document_id, purged_seq, deleted_at < :settled AS settled FROM tombstones"
            " WHERE tenant_id = :tenant_id AND purging AND document_id > :after"
            " ORDER BY document_id LIMIT 1"
        ),
        {
            "tenant_id": tenant_id,
            "settled": settled_before,
            "after": cursor[0] if cursor else str(uuid.UUID(int=0)),
        },
    ).one_or_none()
    if row is None:
        return Piece(0, None)
    # What functions that had it at that moment have called for since.
    called_for = _called_for(connection, tenant_id, {row.document_id}, last_seq=row.purged_seq)
    removed = [
        *(purge(connection, tenant_id, one, row.purged_seq) for one in sorted(called_for)),
        _remove(connection, tenant_id, [row.document_id], row.purged_seq),
    ]
    if row.settled:
        connection.execute(
            text(
                "UPDATE tombstones SET purging = false WHERE tenant_id = :tenant_id"
                " AND document_id = :document_id AND deleted_at < :settled"
            ),
            {"tenant_id": tenant_id, "document_id": row.document_id, "settled": settled_before},
        )
    count = sum(sum(asdict(one).values()) for one in removed)
    return Piece(count, [str(row.document_id)])


_LOCK_DOCUMENTS = text(
    "SELECT id, version, seq FROM documents WHERE tenant_id = :tenant_id"
    " AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"
)
_BURY = text(
    "INSERT INTO tombstones AS t (tenant_id, document_id, version, seq, purged_seq, purging)"
    " VALUES (:tenant_id, :document_id, :version, :seq, :purged_seq, true)"
    " ON CONFLICT (tenant_id, document_id) DO UPDATE SET"
    " version = CASE WHEN (t.version, t.seq) < (EXCLUDED.version, EXCLUDED.seq)"
    "  THEN EXCLUDED.version ELSE t.version END,"
    " seq = CASE WHEN (t.version, t.seq) < (EXCLUDED.version, EXCLUDED.seq)"
    "  THEN EXCLUDED.seq ELSE t.seq END,"
    " purged_seq = greatest(t.purged_seq, EXCLUDED.purged_seq), purging = true, deleted_at = now()"
)
# What a collector's function raised may quote what it was given.
_EVENTS = text(
    "UPDATE operational_events SET data = CAST(jsonb_set(CAST(data AS jsonb), '{error}',"
    " '\"its document was purged\"') AS json)"
    " WHERE tenant_id = :tenant_id AND type = 'delivery.exhausted'"
    " AND data->>'document_id' = ANY(CAST(CAST(:ids AS uuid[]) AS text[]))"
)
_CALLED_FOR = text(
    "SELECT DISTINCT s.child_document_id FROM unnest(CAST(:ids AS uuid[])) AS k (id)"
    " CROSS JOIN LATERAL (SELECT s.child_document_id FROM delivery_steps s"
    "  WHERE s.tenant_id = :tenant_id AND s.document_id = k.id AND s.seq <= :last_seq OFFSET 0) s"
)


def _with_called_for(
    connection: Connection, tenant_id: int, document_id: uuid.UUID
) -> list[uuid.UUID]:
    """Return the document and what collectors called for while they had it, in turn."""
    found, fresh = {document_id}, {document_id}
    while fresh:
        fresh = _called_for(connection, tenant_id, fresh) - found
        found |= fresh
    return sorted(found)


def _called_for(
    connection: Connection, tenant_id: int, ids: set[uuid.UUID], *, last_seq: int = MAX_SEQ
) -> set[uuid.UUID]:
    """Return what collectors called for while they had versions up to an order number."""
    values = {"tenant_id": tenant_id, "ids": sorted(ids), "last_seq": last_seq}
    return set(connection.execute(_CALLED_FOR, values).scalars())


def _remove(
    connection: Connection, tenant_id: int, ids: Sequence[uuid.UUID], last_seq: int
) -> Purged:
    """Remove what was accepted up to an order number: documents, then deliveries, then the rest."""
    values = {"tenant_id": tenant_id, "ids": list(ids), "last_seq": last_seq}
    documents = connection.execute(_DOCUMENTS, values).rowcount
    deliveries = 0
    while removed := removal.remove_deliveries_of(
        connection, tenant_id, ids, last_seq=last_seq, limit=DELIVERIES
    ):
        deliveries += len(removed)
    # What is kept of deliveries that are gone already, and answers in other documents' calls.
    for statement in _TRACES:
        connection.execute(statement, values)
    rejected = connection.execute(_REJECTED, values).rowcount
    counters.add(
        connection,
        tenant_id,
        [Delta("documents.deleted", documents), Delta("rejected.removed", rejected)],
    )
    return Purged(
        documents=documents,
        deliveries=deliveries,
        attempts=connection.execute(_ATTEMPTS, values).rowcount,
        rejected=rejected,
        dead_letters=sum(_cut_out_of_dead_letters(connection, tenant_id, one) for one in ids),
    )


_DOCUMENTS = text(
    "DELETE FROM documents WHERE tenant_id = :tenant_id AND id = ANY(ARRAY("
    " SELECT id FROM documents WHERE tenant_id = :tenant_id AND id = ANY(CAST(:ids AS uuid[]))"
    " AND seq <= :last_seq ORDER BY id FOR UPDATE)) AND seq <= :last_seq"
)
_OF_DOCUMENT = "tenant_id = :tenant_id AND document_id = ANY(CAST(:ids AS uuid[]))"
_TRACES = (
    text(f"DELETE FROM delivery_results WHERE {_OF_DOCUMENT} AND seq <= :last_seq"),  # noqa: S608  (constants only)
    text(f"DELETE FROM delivery_steps WHERE {_OF_DOCUMENT} AND seq <= :last_seq"),  # noqa: S608  (likewise)
    text(f"DELETE FROM unplanned_documents WHERE {_OF_DOCUMENT} AND seq <= :last_seq"),  # noqa: S608  (likewise)
    text(
        "UPDATE delivery_steps SET state = 'failed', value = NULL,"
        " error = 'its document was purged', ended_at = COALESCE(ended_at, now())"
        " WHERE tenant_id = :tenant_id AND child_document_id = ANY(CAST(:ids AS uuid[]))"
        " AND error IS DISTINCT FROM 'its document was purged'"
    ),
)
_ATTEMPTS = text(f"DELETE FROM attempts WHERE {_OF_DOCUMENT} AND seq <= :last_seq")  # noqa: S608  (likewise)
# Those that could not be read have no id of their own; it may stand in their bytes.
_REJECTED = text(
    "DELETE FROM rejected_documents r WHERE r.tenant_id = :tenant_id AND r.seq <= :last_seq"
    " AND (r.document_id = ANY(CAST(:ids AS uuid[])) OR (r.document_id IS NULL AND EXISTS ("
    "  SELECT 1 FROM unnest(CAST(:ids AS uuid[])) AS k (id)"
    "  WHERE position(convert_to(k.id::text, 'UTF8') IN r.body) > 0)))"
)


def _cut_out_of_dead_letters(connection: Connection, tenant_id: int, document_id: uuid.UUID) -> int:
    """Put a few words in place of a document in dead letters; return in how many it was.

    Its place stays: a document's order number is the chunk's plus its place. Tried again, the words
    meet the tombstone.
    """
    rows = connection.execute(
        text(
            "SELECT message_id, body FROM dead_letters WHERE tenant_id = :tenant_id"
            " AND position(convert_to(CAST(:id AS text), 'UTF8') IN body) > 0"
            " ORDER BY message_id FOR UPDATE"
        ),
        {"tenant_id": tenant_id, "id": str(document_id)},
    ).all()
    cut = 0
    for row in rows:
        body = _without(row.body, str(document_id))
        if body is not None:
            cut += 1
            connection.execute(
                text(
                    "UPDATE dead_letters SET body = :body, reason = split_part(reason, ':', 1)"
                    " WHERE tenant_id = :tenant_id AND message_id = :message_id"
                ),
                {"tenant_id": tenant_id, "message_id": row.message_id, "body": body},
            )
    return cut


def _without(body: bytes, document_id: str) -> bytes | None:
    """Return a message without the contents of a document, None where it has none of it."""
    try:
        message = orjson.loads(body)
        documents = message["kwargs"]["documents"]
        found = [one for one in documents if _is(one, document_id)]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not found:
        return None
    gone = {"id": document_id, "content": PURGED}
    message["kwargs"]["documents"] = [gone if _is(one, document_id) else one for one in documents]
    # It may quote what was in hand, as the reason may, of which the exception's name is left.
    if isinstance(options := message.get("options"), dict):
        options.pop("traceback", None)
    return orjson.dumps(message)


def _is(document: object, document_id: str) -> bool:
    return (
        isinstance(document, dict)
        and document.get("id") == document_id
        and document.get("content") != PURGED
    )
