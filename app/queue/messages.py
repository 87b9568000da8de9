"""Messages: one definition for those who send and the actors that receive."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from dramatiq import Message, MessageProxy
from dramatiq.encoder import Encoder, JSONEncoder
from dramatiq.errors import DecodeError

from app.domain.identifiers import new_id
from app.queue.names import DELIVER, DELIVER_DESTINATION, INGEST_CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Documents that were appended together; document ``i`` has order ``seq + i``.

    Attributes:
        documents: JSON objects as they were accepted, each with its ``id``.
        batch_id: the batch or upload that they are part of, None for single documents.
    """

    tenant_id: int
    chunk_id: uuid.UUID
    seq: int
    documents: Sequence[dict[str, Any]]
    batch_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMessage:
    """A chunk on its way into Redis, in two parts: the script puts ``seq`` between them."""

    redis_message_id: str
    chunk_id: uuid.UUID
    count: int
    head: bytes
    tail: bytes


def chunk_message(
    lane: str, tenant_id: int, documents: Sequence[bytes], batch_id: uuid.UUID | None = None
) -> ChunkMessage:
    """Encode a chunk.

    Args:
        lane: queue it goes to.
        tenant_id: whose documents.
        documents: each one's JSON, with its ``id``.
        batch_id: what they are part of.
    """
    chunk_id, message_id = new_id(), str(new_id())
    batch = f'"batch_id":"{batch_id}",' if batch_id else ""
    head = (
        f'{{"queue_name":"{lane}","actor_name":"{INGEST_CHUNK}","args":[],'
        f'"kwargs":{{"chunk_id":"{chunk_id}","tenant_id":{tenant_id},{batch}"seq":'
    )
    tail = (
        f']}},"options":{{"redis_message_id":"{message_id}"}},"message_id":"{message_id}",'
        f'"message_timestamp":{time.time_ns() // 1_000_000}}}'
    )
    return ChunkMessage(
        redis_message_id=message_id,
        chunk_id=chunk_id,
        count=len(documents),
        head=head.encode(),
        tail=b',"documents":[' + b",".join(documents) + tail.encode(),
    )


def doorbell_message(tenant_id: int, destination_id: uuid.UUID) -> tuple[str, bytes]:
    """Encode a doorbell; return its id and its body."""
    message_id = str(new_id())
    body = {
        "queue_name": DELIVER,
        "actor_name": DELIVER_DESTINATION,
        "args": [],
        "kwargs": {"tenant_id": tenant_id, "destination_id": str(destination_id)},
        "options": {"redis_message_id": message_id},
        "message_id": message_id,
        "message_timestamp": time.time_ns() // 1_000_000,
    }
    return message_id, orjson.dumps(body)


def read_message(body: bytes, queue: str) -> Message[Any]:
    """Read a message as Dramatiq's worker needs it.

    The worker takes more for granted than its decoder asks for: a message that names another
    queue ends its thread.

    Raises:
        DecodeError: it is no message of this queue.
    """
    message: Message[Any] = Message.decode(body)
    if not (
        message.queue_name == queue
        and isinstance(message.actor_name, str)
        and isinstance(message.message_id, str)
        and isinstance(message.kwargs, dict)
        and isinstance(message.options, dict)
        and isinstance(message.options.get("redis_message_id"), str)
    ):
        reason = f"Not a message of {queue}."
        raise DecodeError(reason, body, None)
    return message


def redis_id(message: Message[Any] | MessageProxy) -> str:
    """Return the id under which Redis knows the message."""
    known: str = message.options["redis_message_id"]
    return known


def document_count(message: Message[Any] | MessageProxy) -> int:
    """Return how many documents a message carries; 0 when it is no chunk."""
    if message.actor_name != INGEST_CHUNK:
        return 0
    documents = message.kwargs.get("documents")
    return len(documents) if isinstance(documents, list) else 0


class FastEncoder(Encoder):
    """Dramatiq's message encoding by orjson: the same JSON, decoded in a fraction of the time."""

    def encode(self, data: dict[str, Any]) -> bytes:
        """Return the JSON of a message."""
        try:
            return orjson.dumps(data)
        except TypeError:
            # Lone surrogates, say in a traceback. Slowly is better than not at all.
            return JSONEncoder().encode(data)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the message of a JSON text."""
        decoded: dict[str, Any] = orjson.loads(data)
        return decoded
