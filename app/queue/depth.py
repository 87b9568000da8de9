"""How much waits in each queue, and for how long."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import redis
import redis.asyncio

from app.queue.names import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """One queue's backlog.

    Attributes:
        messages: waiting, being worked on and delayed.
        documents: in those messages; 0 for queues that carry none.
        oldest_seconds: age of the message at the head, None when nothing waits.
    """

    queue: str
    messages: int
    documents: int
    oldest_seconds: float | None


async def depths(client: redis.asyncio.Redis, namespace: str, queues: Iterable[str]) -> list[Depth]:
    """Return the backlog of each queue, in one round trip."""
    names, keys = list(queues), Keys(namespace)
    async with client.pipeline(transaction=False) as pipeline:
        for queue in names:
            pipeline.hlen(keys.bodies(queue))
            pipeline.hlen(keys.bodies(f"{queue}.DQ"))
            pipeline.hget(keys.queued, queue)
            pipeline.lindex(keys.ids(queue), 0)
        answers = iter(await pipeline.execute())
    return [
        Depth(
            queue=queue,
            messages=next(answers) + next(answers),
            documents=int(next(answers) or 0),
            oldest_seconds=_age(next(answers)),
        )
        for queue in names
    ]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What several queues hold together.

    Attributes:
        messages: waiting and being worked on; delayed ones give nobody work.
        oldest_seconds: age of the oldest message that nobody has taken, None without one.
    """

    messages: int
    oldest_seconds: float | None


def waiting(client: redis.Redis, namespace: str, queues: Iterable[str]) -> Waiting:
    """Return what queues hold, in one round trip.

    Raises:
        redis.RedisError: Redis did not say.
    """
    keys = Keys(namespace)
    with client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.lindex(keys.ids(queue), 0)
            pipeline.hlen(keys.bodies(queue))
        answers = pipeline.execute()
    ages = [age for head in answers[::2] if (age := _age(head)) is not None]
    return Waiting(messages=sum(answers[1::2]), oldest_seconds=max(ages, default=None))


def _age(head: bytes | None) -> float | None:
    """Read the age off a UUIDv7: its first 48 bits are milliseconds since 1970 (RFC 9562)."""
    if head is None:
        return None
    try:
        created_ms = uuid.UUID(head.decode()).int >> 80
    except ValueError:
        return None
    return max(0.0, time.time() - created_ms / 1000)
