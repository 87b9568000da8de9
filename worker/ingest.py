"""What becomes of a chunk: classify it whole, apply it in one transaction, ring destinations."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from redis import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.domain.documents import MAX_VERSION, accepted_at
from app.domain.errors import DatabaseUnavailable
from app.domain.predictions import Prediction
from app.domain.routing import plan_routes
from app.domain.text import text_fault
from app.queue.messages import Chunk
from app.queue.retries import HandBack
from app.storage import ticks
from app.storage.destinations import DestinationCache
from app.storage.documents import IncomingDocument
from app.storage.engine import transaction
from app.storage.ingest import Applied, Batch, apply, is_unstorable
from app.storage.receipts import begin_try
from app.storage.rejected import Rejection
from worker.classification import ModelHolder
from worker.isolation import Poison, classify_isolated

LOG = structlog.get_logger(__name__)
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

T = TypeVar("T")
Ring = Callable[[int, Sequence[uuid.UUID]], object]
"""Rings the destinations of a tenant."""


class Stopping(HandBack):
    """The process must stop while Postgres is away; the chunk goes back to its queue untried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """What an ingest process needs; one for all its threads."""

    engine: Engine
    model: ModelHolder
    model_path: Path
    destinations: DestinationCache
    ring: Ring
    stopping: threading.Event


def ingest(parts: Ingest, chunk: Chunk) -> None:
    """Apply a chunk once, however often it is delivered.

    Tries are counted before the risky part: from the second on the chunk is classified one by one
    in a child process, and the document that kills it is rejected.

    Raises:
        Stopping: Postgres is away and the process must end.
    """
    attempt = _patiently(
        parts,
        lambda connection: begin_try(connection, chunk.tenant_id, chunk.chunk_id),
        durable=False,
    )
    if not attempt.applied:
        batch = classify(parts, *read(chunk), isolated=attempt.number > 1)
        applied = _apply(parts, batch)
        if applied is not None:
            _ring(parts, chunk.tenant_id, applied.destinations)
            return
    # Applied by a twin or by an earlier try that may have died before it rang.
    waiting = _patiently(
        parts, lambda connection: ticks.waiting_destinations(connection, chunk.tenant_id)
    )
    _ring(parts, chunk.tenant_id, waiting)


def read(chunk: Chunk) -> tuple[Batch, list[str]]:
    """Read a chunk's documents; what cannot be read is rejected, the others go on.

    Returns:
        The batch, not yet classified, and the texts of its documents.
    """
    incoming: list[IncomingDocument] = []
    rejections: list[Rejection] = []
    for position, fields in enumerate(chunk.documents):
        seq = chunk.seq + position
        try:
            incoming.append(_incoming(chunk.tenant_id, seq, fields))
        except (TypeError, ValueError, KeyError) as error:
            rejections.append(
                Rejection(
                    seq=seq,
                    document_id=None,
                    reason=f"cannot be read: {type(error).__name__}: {error}"[:500],
                    body=orjson.dumps(fields),
                )
            )
    batch = Batch(
        tenant_id=chunk.tenant_id,
        chunk_id=chunk.chunk_id,
        documents=incoming,
        rejections=rejections,
    )
    return batch, [document.content for document in incoming]


def _incoming(tenant_id: int, seq: int, fields: dict[str, Any]) -> IncomingDocument:
    """Read one document. The door has validated it; this guards against older or other doors."""
    content = fields["content"]
    if not isinstance(content, str):
        message = "content is not a string"
        raise TypeError(message)
    if fault := text_fault(content):
        message = f"content {fault}"
        raise ValueError(message)
    version = int(fields.get("version") or 0)
    if not 0 <= version <= MAX_VERSION:
        message = "version is out of range"
        raise ValueError(message)
    taken_at = accepted_at(seq)
    return IncomingDocument(
        tenant_id=tenant_id,
        id=uuid.UUID(fields["id"]),
        version=version,
        seq=seq,
        content=content,
        topics=fields.get("topics"),
        keys=fields.get("keys"),
        delivery=fields.get("delivery"),
        priority=fields.get("priority"),
        attributes=fields.get("attributes"),
        created_at=taken_at,
        updated_at=taken_at,
        prediction=None,
    )


def classify(parts: Ingest, batch: Batch, texts: Sequence[str], *, isolated: bool) -> Batch:
    """Add predictions: one call for the chunk, or one document at a time in a child process."""
    if not texts:
        return batch
    answers: Sequence[Prediction | Poison | None]
    if isolated and parts.model.usable():
        answers = classify_isolated(parts.model_path, texts)
    else:
        answers = parts.model.classify(texts)
    documents = [
        replace(document, prediction=answer)
        for document, answer in zip(batch.documents, answers, strict=True)
        if not isinstance(answer, Poison)
    ]
    poisoned = [
        Rejection(
            seq=document.seq,
            document_id=document.id,
            reason=str(answer),
            body=document.as_sent(),
        )
        for document, answer in zip(batch.documents, answers, strict=True)
        if isinstance(answer, Poison)
    ]
    return replace(batch, documents=documents, rejections=[*batch.rejections, *poisoned])


def _apply(parts: Ingest, batch: Batch) -> Applied | None:
    def run(connection: Connection, *, isolate: bool) -> Applied | None:
        enabled = parts.destinations.enabled(connection, batch.tenant_id)
        return apply(
            connection,
            batch,
            lambda document: plan_routes(document, document.prediction, enabled),
            isolate=isolate,
        )

    try:
        return _patiently(parts, lambda connection: run(connection, isolate=False))
    except DBAPIError as error:
        if not is_unstorable(error):
            raise
        return _patiently(parts, lambda connection: run(connection, isolate=True))


def _patiently(parts: Ingest, work: Callable[[Connection], T], *, durable: bool = True) -> T:
    """Run a transaction; while Postgres is away, hold on to the chunk and try again."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with transaction(parts.engine, durable=durable) as connection:
                return work(connection)
        except DatabaseUnavailable as error:
            LOG.warning("database.unavailable", reason=str(error), pause_seconds=pause)
        if parts.stopping.wait(pause):
            message = "stopping while the database is away"
            raise Stopping(message)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _ring(parts: Ingest, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> None:
    """Ring after the commit. A failed ring fails nothing: the sweeper looks as well."""
    if not destination_ids:
        return
    try:
        parts.ring(tenant_id, destination_ids)
    except RedisError as error:
        LOG.warning("doorbell.failed", reason=str(error), destinations=len(destination_ids))
