"""What the storage tests share: an engine on a fresh database, and short ways to make rows."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from app.domain.destinations import Destination, DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.routing import Route
from app.storage import destinations
from app.storage.documents import IncomingDocument
from app.storage.engine import make_engine, transaction
from app.storage.ingest import ClassifiedChunk, apply
from app.storage.receipts import ChunkCounts

_seqs = itertools.count(1_700_000_000_000_000)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, application_name="test", pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def make_document():
    def make(content: str = "some text", **fields: Any) -> IncomingDocument:
        seq = fields.pop("seq", None) or next(_seqs)
        return IncomingDocument(
            tenant_id=DEFAULT_TENANT,
            id=fields.pop("id", None) or uuid.uuid4(),
            version=fields.pop("version", 0),
            seq=seq,
            content=content,
            topics=fields.pop("topics", None),
            keys=fields.pop("keys", None),
            delivery=fields.pop("delivery", None),
            priority=fields.pop("priority", None),
            attributes=fields.pop("attributes", None),
            created_at=accepted_at(seq),
            updated_at=accepted_at(seq),
            prediction=fields.pop("prediction", None),
            **fields,
        )

    return make


@pytest.fixture
def make_target(engine: Engine):
    def make(key: str = "a", **fields: Any) -> Destination:
        given = DestinationInput(key=key, url="http://example.com/hook", **fields)
        made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
        with transaction(engine) as connection:
            destinations.create(connection, made)
        return made

    return make


@pytest.fixture
def store(engine: Engine):
    """Apply documents as one chunk, routed to the given destinations."""

    def run(
        *documents: IncomingDocument,
        to: tuple[Destination, ...] = (),
        chunk_id: uuid.UUID | None = None,
        batch_id: uuid.UUID | None = None,
        isolate: bool = False,
    ) -> ChunkCounts | None:
        chunk = ClassifiedChunk(
            tenant_id=DEFAULT_TENANT,
            chunk_id=chunk_id or uuid.uuid4(),
            documents=list(documents),
            rejections=[],
            batch_id=batch_id,
        )
        with transaction(engine) as connection:
            applied = apply(
                connection,
                DEFAULT_TENANT,
                [chunk],
                lambda _: [Route(one.id, "broadcast") for one in to],
                isolate=isolate,
            )
        return applied.counts.get(chunk.chunk_id)

    return run
