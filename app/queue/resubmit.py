"""Putting back to the queue what was set aside: rejected documents and dead letters.

What is put back keeps its order numbers, so it can never replace a version that is newer than it.
It stays in Postgres until it is applied (documents) or is in the queue again (messages), so a Redis
that loses it loses nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import redis.asyncio
from dramatiq.common import q_name
from redis.exceptions import OutOfMemoryError, RedisError

from app.domain.documents import Lane
from app.domain.errors import NotRetryable, QueueFull, QueueUnavailable
from app.domain.identifiers import new_id
from app.queue.messages import ChunkMessage
from app.queue.names import DELIVER, INGEST_CHUNK, LANES, Keys

SCRIPT = (Path(__file__).parent / "resubmit.lua").read_text(encoding="utf-8")
_OF_THE_LAST_TRY = ("retries", "traceback", "eta", "requeue_timestamp")
"""Options that Dramatiq keeps in a failed message; it begins anew."""


async def resubmit_document(
    client: redis.asyncio.Redis, namespace: str, lane: Lane, chunk: ChunkMessage, seq: int
) -> None:
    """Append a chunk of one document under the order number that it was once accepted with.

    It counts as accepted anew, as it has counted as rejected.

    Raises:
        QueueUnavailable: not confirmed; it may be there all the same.
        QueueFull: Redis is out of memory.
    """
    body = chunk.head + str(seq).encode() + chunk.tail
    await _push(client, Keys(namespace), lane.value, chunk.redis_message_id, body, (1, 1))


async def resubmit_message(client: redis.asyncio.Redis, namespace: str, body: bytes) -> None:
    """Put a dead letter back to its queue, as a new message about the same.

    Raises:
        NotRetryable: it is no message of a queue of ours.
        QueueUnavailable: not confirmed; it may be there all the same.
        QueueFull: Redis is out of memory.
    """
    message = _read(body)
    queue, redis_id = q_name(message["queue_name"]), str(new_id())
    if queue not in {*LANES, DELIVER}:
        raise NotRetryable(f"there is no queue {queue[:100]!r}")
    options = {
        name: value for name, value in message["options"].items() if name not in _OF_THE_LAST_TRY
    }
    message |= {
        "queue_name": queue,
        "options": options | {"redis_message_id": redis_id},
    }
    counts = (documents_in(body), 0)
    await _push(client, Keys(namespace), queue, redis_id, orjson.dumps(message), counts)


def documents_in(body: bytes) -> int:
    """Return how many documents a message carries; 0 when it is no chunk, or cannot be read."""
    try:
        message = orjson.loads(body)
        documents = message["kwargs"]["documents"] if message["actor_name"] == INGEST_CHUNK else ()
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
    return len(documents) if isinstance(documents, list) else 0


def _read(body: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(body)
        if isinstance(message["queue_name"], str) and isinstance(message["options"], dict):
            return dict(message)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    reason = "its body is no message"
    raise NotRetryable(reason)


async def _push(
    client: redis.asyncio.Redis,
    keys: Keys,
    queue: str,
    redis_id: str,
    body: bytes,
    counts: tuple[int, int],
) -> None:
    names = [keys.ids(queue), keys.bodies(queue), keys.accepted, keys.queued]
    try:
        answer: Any = client.eval(
            SCRIPT, len(names), *names, queue, keys.wake(queue), redis_id, body, *counts
        )
        await answer
    except OutOfMemoryError as error:
        raise QueueFull(queue, "Redis is out of memory") from error
    except (RedisError, OSError) as error:
        raise QueueUnavailable(str(error).splitlines()[0][:200]) from error
