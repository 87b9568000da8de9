"""Documents that are stored and not routed yet: marked, read again, planned or put off.

A mark is made in the transaction that stores the document, so that whatever happens next finds it.
Who takes a mark up moves its ``retry_at`` ahead and counts it (``takes``); should that process die,
another takes it up then, by itself: it may be what killed the process. What was taken three times
without a word is set aside (``app.storage.rejected``). An answer, even a failure, ends the count.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, text

from app.domain.predictions import Prediction
from app.domain.routers import RoutedDocument
from app.storage import rejected
from app.storage.documents import OPTIONAL
from app.storage.rejected import Rejection

TAKEN_SECONDS = 60
"""How long a mark is left to who took it up."""
FIRST_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 300
MOST_TAKES = 3
SILENT = "the process that routed it died or hung, three times in a row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """That a version of a document is to be routed."""

    document_id: uuid.UUID
    seq: int
    batch_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplannedDocument:
    """A document to be routed, as it is stored.

    Attributes:
        prediction: None while no model has classified it.
    """

    mark: Mark
    document: RoutedDocument
    prediction: Prediction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is known of a document that is not routed yet.

    Attributes:
        error: why the last attempt failed, None before the first.
    """

    seq: int
    attempts: int
    error: str | None
    created_at: datetime
    retry_at: datetime


_DOCUMENT = (
    "o.id, o.version, o.content, o.topics, o.keys, o.delivery, o.priority, o.attributes,"
    " o.created_at, o.updated_at, o.category, o.confidence, o.model_version"
)


def mark(connection: Connection, tenant_id: int, marks: Sequence[Mark]) -> None:
    """Mark documents within the transaction that stores them; the caller takes them up at once."""
    if not marks:
        return
    ordered = sorted(marks, key=lambda one: one.document_id)
    connection.execute(
        text(
            "INSERT INTO unplanned_documents AS u"
            " (tenant_id, document_id, seq, batch_id, takes, retry_at)"
            " SELECT :tenant_id, marks.*, 1, now() + make_interval(secs => :taken) FROM unnest("
            "  CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]), CAST(:batches AS uuid[]))"
            "  AS marks"
            " ON CONFLICT (tenant_id, document_id) DO UPDATE SET seq = EXCLUDED.seq,"
            " batch_id = EXCLUDED.batch_id, attempts = 0, error = NULL, created_at = now(),"
            " takes = 1, retry_at = EXCLUDED.retry_at"
        ),
        {
            "tenant_id": tenant_id,
            "taken": TAKEN_SECONDS,
            "documents": [one.document_id for one in ordered],
            "seqs": [one.seq for one in ordered],
            "batches": [one.batch_id for one in ordered],
        },
    )


def mark_again(connection: Connection, tenant_id: int, document_id: uuid.UUID, seq: int) -> bool:
    """Mark a document that was set aside; False when this version is not the stored one."""
    made = connection.execute(
        text(
            "INSERT INTO unplanned_documents (tenant_id, document_id, seq, retry_at)"
            " SELECT tenant_id, id, seq, now() FROM documents"
            " WHERE tenant_id = :tenant_id AND id = :document_id AND seq = :seq FOR SHARE"
            " ON CONFLICT DO NOTHING"
        ),
        {"tenant_id": tenant_id, "document_id": document_id, "seq": seq},
    )
    return bool(made.rowcount)


def drop_outdated(connection: Connection, tenant_id: int, *, limit: int) -> None:
    """Drop marks that are due and whose document was deleted or replaced."""
    connection.execute(
        text(
            "DELETE FROM unplanned_documents u WHERE u.tenant_id = :tenant_id"
            " AND u.document_id IN (SELECT document_id FROM unplanned_documents"
            "  WHERE tenant_id = :tenant_id AND retry_at <= now()"
            "  ORDER BY retry_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
            " AND NOT EXISTS (SELECT 1 FROM documents o WHERE o.tenant_id = u.tenant_id"
            "  AND o.id = u.document_id AND o.seq = u.seq)"
        ),
        {"tenant_id": tenant_id, "limit": limit},
    )


def take_due(
    connection: Connection, tenant_id: int, *, limit: int, suspect: bool = False
) -> list[UnplannedDocument]:
    """Take up documents whose time has come.

    Args:
        connection: within a transaction that commits before anybody is asked.
        tenant_id: whose.
        limit: how many at most.
        suspect: those that were taken before without a word of what came of it, or the others.
    """
    rows = connection.execute(
        text(
            # Materialized: as the inner side of a join it would be run, and locked, once per row.
            "WITH due AS MATERIALIZED (SELECT document_id FROM unplanned_documents"  # noqa: S608  (constants only)
            "  WHERE tenant_id = :tenant_id AND retry_at <= now() AND (takes > 0) = :suspect"
            "  AND takes < :most ORDER BY retry_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
            " UPDATE unplanned_documents u SET retry_at = now() + make_interval(secs => :taken),"
            " takes = u.takes + 1 FROM due"
            " JOIN documents o ON o.tenant_id = :tenant_id AND o.id = due.document_id"
            " WHERE u.tenant_id = :tenant_id AND u.document_id = due.document_id AND u.seq = o.seq"
            f" RETURNING u.seq, u.batch_id, {_DOCUMENT}"
        ),
        {
            "tenant_id": tenant_id,
            "taken": TAKEN_SECONDS,
            "limit": limit,
            "suspect": suspect,
            "most": MOST_TAKES,
        },
    )
    return [_unplanned(row) for row in rows]


def set_silent_aside(connection: Connection, tenant_id: int, *, limit: int) -> list[uuid.UUID]:
    """Set aside what was taken too often without a word; return those documents.

    They stay stored. Their rows are locked first, as in ``claim``.
    """
    rows = connection.execute(
        text(
            f"SELECT u.seq, u.batch_id, {_DOCUMENT} FROM unplanned_documents u"  # noqa: S608  (constants only)
            " JOIN documents o ON o.tenant_id = :tenant_id AND o.id = u.document_id"
            "  AND o.seq = u.seq"
            " WHERE u.tenant_id = :tenant_id AND u.retry_at <= now() AND u.takes >= :most"
            " ORDER BY o.id LIMIT :limit FOR SHARE OF o SKIP LOCKED"
        ),
        {"tenant_id": tenant_id, "limit": limit, "most": MOST_TAKES},
    )
    silent = {one.mark: one for one in map(_unplanned, rows)}
    claimed = claim(connection, tenant_id, list(silent)) if silent else set()
    mine = [one for mark, one in silent.items() if (mark.document_id, mark.seq) in claimed]
    rejections = [
        Rejection(
            seq=one.mark.seq,
            document_id=one.mark.document_id,
            reason=SILENT,
            body=_as_sent(one.document),
            stage="router",
        )
        for one in mine
    ]
    # There is no chunk any more.
    rejected.reject(connection, tenant_id, uuid.UUID(int=0), rejections)
    return [one.mark.document_id for one in mine]


def _as_sent(document: RoutedDocument) -> bytes:
    fields = {
        "id": document.id,
        "content": document.content,
        "version": document.version or None,
        **{name: getattr(document, name) for name in OPTIONAL},
    }
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def _unplanned(row: Row[Any]) -> UnplannedDocument:
    return UnplannedDocument(
        mark=Mark(document_id=row.id, seq=row.seq, batch_id=row.batch_id),
        document=RoutedDocument.of(row),
        prediction=None
        if row.category is None
        else Prediction(row.category, row.confidence, row.model_version),
    )


def claim(
    connection: Connection, tenant_id: int, marks: Sequence[Mark]
) -> set[tuple[uuid.UUID, int]]:
    """Remove marks to plan their documents now; return which, by document and order number.

    The documents' rows are locked first: a newer version waits until these deliveries are there
    for it to supersede. A mark that somebody else has claimed, or that a newer version has
    replaced, is not among them.
    """
    values = {
        "tenant_id": tenant_id,
        "documents": [one.document_id for one in marks],
        "seqs": [one.seq for one in marks],
    }
    connection.execute(
        text(
            "SELECT id FROM documents WHERE tenant_id = :tenant_id"
            " AND id = ANY(CAST(:documents AS uuid[])) ORDER BY id FOR SHARE"
        ),
        values,
    )
    rows = connection.execute(
        text(
            "WITH mine AS (SELECT u.document_id, u.seq FROM unplanned_documents u"
            "  JOIN unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]))"
            "   AS m (document_id, seq) USING (document_id, seq)"
            "  WHERE u.tenant_id = :tenant_id ORDER BY u.document_id FOR UPDATE OF u)"
            " DELETE FROM unplanned_documents u USING mine JOIN documents o"
            "  ON o.tenant_id = :tenant_id AND o.id = mine.document_id AND o.seq = mine.seq"
            " WHERE u.tenant_id = :tenant_id AND u.document_id = mine.document_id"
            " AND u.seq = mine.seq RETURNING u.document_id, u.seq"
        ),
        values,
    )
    return {(row.document_id, row.seq) for row in rows}


def put_off(connection: Connection, tenant_id: int, failures: Mapping[Mark, str]) -> None:
    """Note why documents could not be routed, and when to try again: later each time."""
    if not failures:
        return
    ordered = sorted(failures, key=lambda one: one.document_id)
    connection.execute(
        text(
            "UPDATE unplanned_documents u SET attempts = u.attempts + 1, error = f.error,"
            " takes = 0, retry_at = now() + make_interval(secs => least(:longest,"
            "  :first * power(2, least(u.attempts, 20))))"
            " FROM (SELECT u.document_id, u.seq, m.error FROM unplanned_documents u"
            "  JOIN unnest(CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]),"
            "   CAST(:errors AS text[])) AS m (document_id, seq, error) USING (document_id, seq)"
            "  WHERE u.tenant_id = :tenant_id ORDER BY u.document_id FOR UPDATE OF u) f"
            " WHERE u.tenant_id = :tenant_id AND u.document_id = f.document_id AND u.seq = f.seq"
        ),
        {
            "tenant_id": tenant_id,
            "first": FIRST_RETRY_SECONDS,
            "longest": LONGEST_RETRY_SECONDS,
            "documents": [one.document_id for one in ordered],
            "seqs": [one.seq for one in ordered],
            "errors": [failures[one] for one in ordered],
        },
    )


def of_document(connection: Connection, tenant_id: int, document_id: uuid.UUID) -> Waiting | None:
    """Return what is known of a document that is not routed yet, None when it is."""
    row = connection.execute(
        text(
            "SELECT seq, attempts, error, created_at, retry_at FROM unplanned_documents"
            " WHERE tenant_id = :tenant_id AND document_id = :document_id"
        ),
        {"tenant_id": tenant_id, "document_id": document_id},
    ).one_or_none()
    return None if row is None else Waiting(**row._asdict())


def count(connection: Connection, tenant_id: int, *, most: int = 10_000) -> int:
    """Return how many documents are not routed yet, counting no further than ``most``."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM (SELECT 1 FROM unplanned_documents"
                " WHERE tenant_id = :tenant_id LIMIT :most) u"
            ),
            {"tenant_id": tenant_id, "most": most},
        ).scalar_one()
    )
