"""Every actor, in one table. Names are wire format: never renamed, workers are deployed first."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import dramatiq

from app.domain.documents import Lane
from app.queue.messages import Chunk
from app.queue.names import DELIVER, DELIVER_DESTINATION, INGEST_CHUNK, LANES

RETRY_FIRST_MS = 500
RETRY_LONGEST_MS = 30_000
CHUNK_RETRIES = 20
"""With these delays about eight minutes; what then still fails is a dead letter in Postgres."""


def register_ingest(broker: dramatiq.Broker, ingest: Callable[[Chunk], None]) -> None:
    """Register the actor that takes chunks off the three lanes."""

    def ingest_chunk(
        *,
        tenant_id: int,
        chunk_id: str,
        seq: int,
        documents: list[dict[str, Any]],
        batch_id: str | None = None,
    ) -> None:
        ingest(
            Chunk(
                tenant_id=tenant_id,
                chunk_id=uuid.UUID(chunk_id),
                seq=seq,
                documents=documents,
                batch_id=uuid.UUID(batch_id) if batch_id else None,
            )
        )

    dramatiq.actor(
        broker=broker,
        actor_name=INGEST_CHUNK,
        queue_name=Lane.NORMAL.value,
        max_retries=CHUNK_RETRIES,
        min_backoff=RETRY_FIRST_MS,
        max_backoff=RETRY_LONGEST_MS,
    )(ingest_chunk)
    for lane in LANES:
        broker.declare_queue(lane)


def register_delivery(broker: dramatiq.Broker, deliver: Callable[[int, uuid.UUID], None]) -> None:
    """Register the actor that answers doorbells."""

    def deliver_destination(*, tenant_id: int, destination_id: str) -> None:
        deliver(tenant_id, uuid.UUID(destination_id))

    dramatiq.actor(
        broker=broker,
        actor_name=DELIVER_DESTINATION,
        queue_name=DELIVER,
        # The sweeper rings again within a second; a doorbell that failed need not be kept.
        max_retries=3,
        min_backoff=RETRY_FIRST_MS,
        max_backoff=RETRY_LONGEST_MS,
    )(deliver_destination)
