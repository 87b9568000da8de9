"""What Redis counts of the intake: documents ever appended, and those that are queued now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from app.domain.errors import QueueUnreadable
from app.queue.names import LANES, Keys
from app.queue.resubmit import documents_in

MOST_DEAD = 1_000
"""Dead letters of a lane that are looked into; they leave Redis every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Counts of one moment.

    Attributes:
        accepted: documents that each lane has ever taken.
        queued: documents waiting, being worked on or delayed.
        dead: documents in dead letters that have not left Redis yet.
    """

    accepted: dict[str, int]
    queued: int
    dead: int


async def read_counts(client: redis.asyncio.Redis, namespace: str) -> QueueCounts:
    """Return what Redis counts, all at one moment.

    Raises:
        QueueUnreadable: Redis did not say.
    """
    keys = Keys(namespace)
    try:
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(keys.accepted)
            pipeline.hgetall(keys.queued)
            for lane in LANES:
                pipeline.hvals(f"{keys.dead(lane)}.msgs")
            accepted, queued, *dead = await pipeline.execute()
    except (RedisError, OSError) as error:
        raise QueueUnreadable(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return QueueCounts(
        accepted=_numbers(accepted),
        queued=sum(_numbers(queued).values()),
        dead=sum(documents_in(body) for bodies in dead for body in bodies[:MOST_DEAD]),
    )


def read_accepted(client: redis.Redis, namespace: str) -> dict[str, int]:
    """Return how many documents each lane has ever taken.

    Raises:
        redis.RedisError: Redis did not say.
    """
    answer: Any = client.hgetall(Keys(namespace).accepted)
    return _numbers(answer)


def _numbers(answer: dict[bytes, bytes]) -> dict[str, int]:
    return {lane.decode(): int(number) for lane, number in answer.items()}
