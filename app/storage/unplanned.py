"""Documents that are stored and not routed yet: marked, read again, planned or put off.

A mark is made in the transaction that stores the document, so that whatever happens next finds it.
Who takes a mark up moves its ``retry_at`` ahead; should that process die, another takes it up then.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.domain.predictions import Prediction
from app.domain.routers import RoutedDocument

TAKEN_SECONDS = 60
"""How long a mark is left to who took it up."""
FIRST_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 300


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


def mark(connection: Connection, tenant_id: int, marks: Sequence[Mark]) -> None:
    """Mark documents within the transaction that stores them; the caller takes them up at once."""
    if not marks:
        return
    ordered = sorted(marks, key=lambda one: one.document_id)
    connection.execute(
        text(
            "INSERT INTO unplanned_documents AS u"
            " (tenant_id, document_id, seq, batch_id, retry_at)"
            " SELECT :tenant_id, marks.*, now() + make_interval(secs => :taken) FROM unnest("
            "  CAST(:documents AS uuid[]), CAST(:seqs AS bigint[]), CAST(:batches AS uuid[]))"
            "  AS marks"
            " ON CONFLICT (tenant_id, document_id) DO UPDATE SET seq = EXCLUDED.seq,"
            " batch_id = EXCLUDED.batch_id, attempts = 0, error = NULL, created_at = now(),"
            " retry_at = EXCLUDED.retry_at"
        ),
        {
            "tenant_id": tenant_id,
            "taken": TAKEN_SECONDS,
            "documents": [one.document_id for one in ordered],
            "seqs": [one.seq for one in ordered],
            "batches": [one.batch_id for one in ordered],
        },
    )


def take_due(connection: Connection, tenant_id: int, *, limit: int) -> list[UnplannedDocument]:
    """Take up documents whose time has come; drop marks whose document was deleted or replaced."""
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
    rows = connection.execute(
        text(
            "UPDATE unplanned_documents u SET retry_at = now() + make_interval(secs => :taken)"
            " FROM (SELECT document_id FROM unplanned_documents WHERE tenant_id = :tenant_id"
            "  AND retry_at <= now() ORDER BY retry_at LIMIT :limit FOR UPDATE SKIP LOCKED) due"
            " JOIN documents o ON o.tenant_id = :tenant_id AND o.id = due.document_id"
            " WHERE u.tenant_id = :tenant_id AND u.document_id = due.document_id AND u.seq = o.seq"
            " RETURNING u.seq, u.batch_id, o.id, o.version, o.content, o.topics, o.keys,"
            " o.delivery, o.priority, o.attributes, o.created_at, o.updated_at, o.category,"
            " o.confidence, o.model_version"
        ),
        {"tenant_id": tenant_id, "taken": TAKEN_SECONDS, "limit": limit},
    )
    return [
        UnplannedDocument(
            mark=Mark(document_id=row.id, seq=row.seq, batch_id=row.batch_id),
            document=RoutedDocument.of(row),
            prediction=None
            if row.category is None
            else Prediction(row.category, row.confidence, row.model_version),
        )
        for row in rows
    ]


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
            " retry_at = now() + make_interval(secs => least(:longest,"
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
