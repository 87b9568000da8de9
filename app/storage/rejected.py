"""Documents and queue messages that were set aside, with their bytes and the reason."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An accepted document that cannot be stored."""

    seq: int
    document_id: uuid.UUID | None
    reason: str
    body: bytes


def reject(
    connection: Connection, tenant_id: int, chunk_id: uuid.UUID, rejections: Sequence[Rejection]
) -> None:
    """Set documents aside; within the transaction that applies the rest of their chunk."""
    if not rejections:
        return
    connection.execute(
        text(
            "INSERT INTO rejected_documents"
            " (tenant_id, chunk_id, seq, document_id, reason, body)"
            " VALUES (:tenant_id, :chunk_id, :seq, :document_id, :reason, :body)"
            " ON CONFLICT DO NOTHING"
        ),
        [
            {
                "tenant_id": tenant_id,
                "chunk_id": chunk_id,
                "seq": rejection.seq,
                "document_id": rejection.document_id,
                "reason": rejection.reason.replace("\0", "\\0"),
                "body": rejection.body,
            }
            for rejection in sorted(rejections, key=lambda one: one.seq)
        ],
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage:
    """A queue message that was given up."""

    message_id: str
    queue: str
    body: bytes
    reason: str | None


def store_dead_letters(
    connection: Connection, tenant_id: int, messages: Sequence[DeadMessage]
) -> None:
    """Keep dead letters; a message that is already kept stays as it is."""
    if not messages:
        return
    connection.execute(
        text(
            "INSERT INTO dead_letters (tenant_id, message_id, queue, body, reason)"
            " VALUES (:tenant_id, :message_id, :queue, :body, :reason) ON CONFLICT DO NOTHING"
        ),
        [
            {
                "tenant_id": tenant_id,
                "message_id": message.message_id,
                "queue": message.queue,
                "body": message.body,
                "reason": message.reason.replace("\0", "\\0") if message.reason else None,
            }
            for message in messages
        ],
    )
