"""Documents that were set aside, with their bytes and the reason, until somebody decides.

A row is counted as it comes and as it goes (``rejected.created``, ``rejected.removed``), so that
one which vanishes is missed (``app.storage.ledger``).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from app.domain.documents import MAX_SEQ
from app.storage import counters
from app.storage.counters import Delta

Stage = Literal["ingest", "classifier", "router"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An accepted document that cannot be stored, or cannot be routed.

    Attributes:
        stage: where it failed; one that fails in the ``router`` is stored.
    """

    seq: int
    document_id: uuid.UUID | None
    reason: str
    body: bytes
    stage: Stage = "ingest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A document that was set aside.

    Attributes:
        seq: its order number, which names it.
        size: bytes of its body.
        body: JSON as it was accepted; None where only the rest was asked for.
        retried_at: when it was last put back to the queue, where it then waits.
    """

    seq: int
    document_id: uuid.UUID | None
    stage: Stage
    reason: str
    size: int
    rejected_at: datetime
    retried_at: datetime | None
    body: bytes | None = None


def reject(
    connection: Connection, tenant_id: int, chunk_id: uuid.UUID, rejections: Sequence[Rejection]
) -> None:
    """Set documents aside; within the transaction that applies the rest of their chunk."""
    if not rejections:
        return
    ordered = sorted(rejections, key=lambda one: one.seq)
    made = connection.execute(
        text(
            "INSERT INTO rejected_documents"
            " (tenant_id, chunk_id, seq, document_id, reason, body, stage)"
            " SELECT :tenant_id, :chunk_id, r.* FROM unnest(CAST(:seqs AS bigint[]),"
            " CAST(:documents AS uuid[]), CAST(:reasons AS text[]), CAST(:bodies AS bytea[]),"
            " CAST(:stages AS text[])) AS r ON CONFLICT DO NOTHING RETURNING 1"
        ),
        {
            "tenant_id": tenant_id,
            "chunk_id": chunk_id,
            "seqs": [one.seq for one in ordered],
            "documents": [one.document_id for one in ordered],
            "reasons": [one.reason.replace("\0", "\\0") for one in ordered],
            "bodies": [one.body for one in ordered],
            "stages": [one.stage for one in ordered],
        },
    )
    counters.add(connection, tenant_id, [Delta("rejected.created", len(made.all()))])


def remove(connection: Connection, tenant_id: int, seqs: Sequence[int]) -> list[int]:
    """Let go of documents that were set aside; return those that were.

    Because somebody dropped them, or because their retry is applied, in whose transaction this is:
    until that commits they are kept here.
    """
    removed = connection.execute(
        text(
            "DELETE FROM rejected_documents r USING (SELECT seq FROM rejected_documents"
            "  WHERE tenant_id = :tenant_id AND seq = ANY(:seqs) ORDER BY seq FOR UPDATE) mine"
            " WHERE r.tenant_id = :tenant_id AND r.seq = mine.seq RETURNING r.seq"
        ),
        {"tenant_id": tenant_id, "seqs": list(seqs)},
    )
    found = [row.seq for row in removed]
    counters.add(connection, tenant_id, [Delta("rejected.removed", len(found))])
    return found


def kept(connection: Connection, tenant_id: int, seqs: Sequence[int]) -> set[int]:
    """Return those that are still set aside."""
    rows = connection.execute(
        text(
            "SELECT seq FROM rejected_documents WHERE tenant_id = :tenant_id AND seq = ANY(:seqs)"
        ),
        {"tenant_id": tenant_id, "seqs": list(seqs)},
    )
    return set(rows.scalars())


def reason_of(connection: Connection, tenant_id: int, document_id: uuid.UUID) -> str | None:
    """Return why a document was set aside, None when it was not."""
    reason: str | None = connection.execute(
        text(
            "SELECT reason FROM rejected_documents WHERE tenant_id = :tenant_id"
            " AND document_id = :document_id ORDER BY seq DESC LIMIT 1"
        ),
        {"tenant_id": tenant_id, "document_id": document_id},
    ).scalar_one_or_none()
    return reason


_SHOWN = "seq, document_id, stage, reason, length(body) AS size, rejected_at, retried_at"


def list_page(
    connection: Connection,
    tenant_id: int,
    *,
    limit: int,
    after: int | None = None,
    document_id: uuid.UUID | None = None,
) -> list[Rejected]:
    """Return what was set aside, without bodies, what was accepted last first."""
    of_document = "" if document_id is None else " AND document_id = :document_id"
    rows = connection.execute(
        text(
            f"SELECT {_SHOWN} FROM rejected_documents WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" AND seq < :before{of_document} ORDER BY seq DESC LIMIT :limit"
        ),
        {
            "tenant_id": tenant_id,
            "before": MAX_SEQ if after is None else after,
            "document_id": document_id,
            "limit": limit,
        },
    )
    return [Rejected(**row._asdict()) for row in rows]


def get(connection: Connection, tenant_id: int, seq: int, *, lock: bool = False) -> Rejected | None:
    """Return one with its body, or None; ``lock`` holds its document as well."""
    values = {"tenant_id": tenant_id, "seq": seq}
    if lock:
        # Documents before the rest, as a purge does.
        connection.execute(
            text(
                "SELECT FROM documents WHERE tenant_id = :tenant_id AND id = (SELECT document_id"
                " FROM rejected_documents WHERE tenant_id = :tenant_id AND seq = :seq) FOR SHARE"
            ),
            values,
        )
    row = connection.execute(
        text(
            f"SELECT {_SHOWN}, body FROM rejected_documents WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" AND seq = :seq{' FOR UPDATE' if lock else ''}"
        ),
        values,
    ).one_or_none()
    return None if row is None else Rejected(**row._asdict())


def mark_retried(connection: Connection, tenant_id: int, seq: int, chunk_id: uuid.UUID) -> None:
    """Note that a document goes back to the queue, in which chunk."""
    connection.execute(
        text(
            "UPDATE rejected_documents SET retried_at = now(), chunk_id = :chunk_id"
            " WHERE tenant_id = :tenant_id AND seq = :seq"
        ),
        {"tenant_id": tenant_id, "seq": seq, "chunk_id": chunk_id},
    )


def unmark_retried(connection: Connection, tenant_id: int, seq: int, chunk_id: uuid.UUID) -> None:
    """Note that the queue did not take a chunk; another retry stays noted."""
    connection.execute(
        text(
            "UPDATE rejected_documents SET retried_at = NULL"
            " WHERE tenant_id = :tenant_id AND seq = :seq AND chunk_id = :chunk_id"
        ),
        {"tenant_id": tenant_id, "seq": seq, "chunk_id": chunk_id},
    )
