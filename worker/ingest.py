"""What becomes of chunks: classify them whole, apply them in one transaction, ring destinations."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import orjson
import structlog
from redis import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.domain.documents import MAX_VERSION, accepted_at
from app.domain.errors import DatabaseUnavailable
from app.domain.predictions import Prediction
from app.domain.routing import Route, RoutingTable
from app.domain.text import sentence_of, text_fault
from app.queue.messages import Chunk
from app.queue.retries import HandBack
from app.storage import ticks
from app.storage.destinations import DestinationCache
from app.storage.documents import IncomingDocument
from app.storage.engine import transaction
from app.storage.ingest import Applied, ClassifiedChunk, apply, is_unstorable
from app.storage.receipts import begin_tries
from app.storage.rejected import Rejection
from worker.classification import ModelHolder
from worker.isolation import IsolatedClassifier, Poison
from worker.planning import Planning, Ring, as_unplanned, plan

LOG = structlog.get_logger(__name__)
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.0
"""What a recovered Postgres waits for us at most; one try a second and thread costs it nothing."""

T = TypeVar("T")


class Stopping(HandBack):
    """The process must stop while Postgres is away; the chunk goes back to its queue untried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """What an ingest process needs; one for all its threads."""

    engine: Engine
    model: ModelHolder
    isolated: IsolatedClassifier
    destinations: DestinationCache
    ring: Ring
    stopping: threading.Event
    planning: Planning | None = None
    """Routes behind the commit, where the user has a router of his own."""


def ingest(parts: Ingest, chunks: Sequence[Chunk]) -> None:
    """Apply chunks of one tenant in one transaction, each once, however often it is delivered.

    Tries are counted before the risky part: from the second on a chunk goes by itself, classified
    one by one in a child process, and the document that kills it is rejected.

    Raises:
        Stopping: Postgres is away and the process must end.
    """
    tenant_id = chunks[0].tenant_id
    tries = _patiently(
        parts,
        lambda connection: begin_tries(connection, tenant_id, [one.chunk_id for one in chunks]),
        durable=False,
    )
    left = [chunk for chunk in chunks if not tries[chunk.chunk_id].applied]
    new = [chunk for chunk in left if tries[chunk.chunk_id].number == 1]
    groups = [(new, False), *(([one], True) for one in left if one not in new)]
    applied: list[Applied] = []
    for group, isolated in groups:
        if group:
            applied.append(_apply(parts, tenant_id, classify(parts, group, isolated=isolated)))
    destinations = {one for done in applied for one in done.destinations}
    if sum(len(done.counts) for done in applied) < len(chunks):
        # Applied by a twin or by an earlier try that may have died before it rang.
        destinations.update(
            _patiently(parts, lambda connection: ticks.waiting_destinations(connection, tenant_id))
        )
    _ring(parts, tenant_id, sorted(destinations))


def read(chunk: Chunk) -> ClassifiedChunk:
    """Read a chunk's documents, for now without predictions; what cannot be read is rejected."""
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
                    reason=f"cannot be read: {sentence_of(error)}",
                    body=orjson.dumps(fields),
                )
            )
    return ClassifiedChunk(
        tenant_id=chunk.tenant_id,
        chunk_id=chunk.chunk_id,
        documents=incoming,
        rejections=rejections,
        batch_id=chunk.batch_id,
    )


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
    )


def classify(parts: Ingest, chunks: Sequence[Chunk], *, isolated: bool) -> list[ClassifiedChunk]:
    """Read and classify: one call for all chunks, or one document at a time in a child process."""
    read_chunks = [read(chunk) for chunk in chunks]
    texts = [document.content for chunk in read_chunks for document in chunk.documents]
    if not texts:
        return read_chunks
    answers: Sequence[Prediction | Poison | None]
    if isolated and parts.model.usable():
        answers = parts.isolated.classify(texts)
    else:
        answers = parts.model.classify(texts)
    each = iter(answers)
    return [
        _with_predictions(chunk, list(islice(each, len(chunk.documents)))) for chunk in read_chunks
    ]


def _with_predictions(
    chunk: ClassifiedChunk, answers: Sequence[Prediction | Poison | None]
) -> ClassifiedChunk:
    documents: list[IncomingDocument] = []
    rejections = list(chunk.rejections)
    for document, answer in zip(chunk.documents, answers, strict=True):
        if isinstance(answer, Poison):
            rejections.append(
                Rejection(
                    seq=document.seq,
                    document_id=document.id,
                    reason=str(answer),
                    body=document.as_sent(),
                    stage="classifier",
                )
            )
        else:
            document.prediction = answer
            documents.append(document)
    return replace(chunk, documents=documents, rejections=rejections)


def _apply(parts: Ingest, tenant_id: int, chunks: Sequence[ClassifiedChunk]) -> Applied:
    def run(connection: Connection, *, isolate: bool) -> Applied:
        table = parts.destinations.table(connection, tenant_id)
        return apply(
            connection,
            tenant_id,
            chunks,
            lambda document: None if parts.planning else _routes(table, document),
            isolate=isolate,
        )

    try:
        applied = _patiently(parts, lambda connection: run(connection, isolate=False))
    except DBAPIError as error:
        if not is_unstorable(error):
            raise
        applied = _patiently(parts, lambda connection: run(connection, isolate=True))
    if parts.planning is not None and applied.unplanned:
        _plan(parts.planning, tenant_id, applied)
    return applied


def _routes(table: RoutingTable, document: IncomingDocument) -> list[Route] | None:
    try:
        return table.routes(document, document.prediction)
    except Exception:
        # Whatever an older or other door let through: the document is stored, and tried again.
        LOG.exception("routing.failed", document=str(document.id))
        return None


def _plan(planning: Planning, tenant_id: int, applied: Applied) -> None:
    """Route what has been stored. The marks are in the database: a failure fails nothing."""
    documents = [as_unplanned(document, mark) for document, mark in applied.unplanned]
    try:
        plan(planning, tenant_id, documents)
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        LOG.warning("planning.failed", documents=len(documents), reason=str(error).splitlines()[0])


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
