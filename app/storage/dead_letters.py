"""Queue messages that were given up, moved out of Redis with the documents that they carry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.storage import counters, receipts
from app.storage.counters import Delta


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage:
    """A queue message that was given up.

    Attributes:
        message_id: the id that it had in Redis; a message that is queued again gets another.
        documents: how many it carries; they are neither stored nor queued while it is here.
    """

    message_id: str
    queue: str
    body: bytes
    reason: str | None
    documents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter as it is kept; ``body`` is None where only the rest was asked for."""

    message_id: str
    queue: str
    reason: str | None
    documents: int
    size: int
    died_at: datetime
    body: bytes | None = None


def store(connection: Connection, tenant_id: int, messages: Sequence[DeadMessage]) -> None:
    """Keep dead letters; a message that is or was kept already stays as it is, or gone."""
    # Redis may hand one over again that somebody has put back or dropped meanwhile.
    fresh = receipts.claim(connection, tenant_id, [_receipt_id(one) for one in messages])
    messages = [one for one in messages if _receipt_id(one) in fresh]
    if not messages:
        return
    made = connection.execute(
        text(
            "INSERT INTO dead_letters (tenant_id, message_id, queue, body, reason, documents)"
            " SELECT :tenant_id, m.* FROM unnest(CAST(:ids AS text[]), CAST(:queues AS text[]),"
            " CAST(:bodies AS bytea[]), CAST(:reasons AS text[]), CAST(:documents AS integer[]))"
            " AS m ON CONFLICT DO NOTHING RETURNING 1"
        ),
        {
            "tenant_id": tenant_id,
            "ids": [one.message_id for one in messages],
            "queues": [one.queue for one in messages],
            "bodies": [one.body for one in messages],
            "reasons": [one.reason and one.reason.replace("\0", "\\0") for one in messages],
            "documents": [one.documents for one in messages],
        },
    )
    counters.add(connection, tenant_id, [Delta("dead_letters.created", len(made.all()))])


def _receipt_id(message: DeadMessage) -> uuid.UUID:
    try:
        return uuid.UUID(message.message_id)
    except ValueError:  # put into the queue by somebody else
        return uuid.uuid5(uuid.NAMESPACE_OID, message.message_id)


def remove(connection: Connection, tenant_id: int, message_id: str) -> None:
    """Let go of a dead letter, if there is one of this id."""
    removed = connection.execute(
        text("DELETE FROM dead_letters WHERE tenant_id = :tenant_id AND message_id = :message_id"),
        {"tenant_id": tenant_id, "message_id": message_id},
    ).rowcount
    counters.add(connection, tenant_id, [Delta("dead_letters.removed", removed)])


def count_dropped(connection: Connection, tenant_id: int, documents: int) -> None:
    """Count documents that somebody let go of with their message: accepted, and wanted no more."""
    counters.add(connection, tenant_id, [Delta("documents.dropped", documents)])


_SHOWN = "message_id, queue, reason, documents, length(body) AS size, died_at"


def list_page(
    connection: Connection, tenant_id: int, *, limit: int, after: str | None = None
) -> list[DeadLetter]:
    """Return dead letters without bodies, what was queued last first (ids are UUIDv7)."""
    rows = connection.execute(
        text(
            f"SELECT {_SHOWN} FROM dead_letters WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            " AND (CAST(:after AS text) IS NULL OR message_id < :after)"
            " ORDER BY message_id DESC LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "after": after, "limit": limit},
    )
    return [DeadLetter(**row._asdict()) for row in rows]


def get(
    connection: Connection, tenant_id: int, message_id: str, *, lock: bool = False
) -> DeadLetter | None:
    """Return one with its body, or None."""
    row = connection.execute(
        text(
            f"SELECT {_SHOWN}, body FROM dead_letters"  # noqa: S608  (constants only)
            " WHERE tenant_id = :tenant_id AND message_id = :message_id"
            f"{' FOR UPDATE' if lock else ''}"
        ),
        {"tenant_id": tenant_id, "message_id": message_id},
    ).one_or_none()
    return None if row is None else DeadLetter(**row._asdict())
