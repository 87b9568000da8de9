"""What Redis knows of a batch: how much of it was accepted, and whether more may come.

Counted inside the append, so it is as durable as the documents. A worker forgets it once every
accepted document has been applied: from then on the sums in Postgres say the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from app.domain.errors import Unavailable
from app.queue.append import BATCH_SECONDS
from app.queue.names import Keys

RECEIVING, COMPLETE = "receiving", "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was taken in of a batch.

    Attributes:
        state: ``receiving``, ``complete``, or a word for how an upload ended early.
    """

    accepted: int
    state: str


async def read(client: redis.asyncio.Redis, namespace: str, batch_id: uuid.UUID) -> Taken | None:
    """Return what Redis knows of a batch; None when it knows nothing (any more).

    Raises:
        Unavailable: Redis did not say.
    """
    key = Keys(namespace).batch(batch_id)
    try:
        answer: list[Any] = await client.hmget(key, ["accepted", "ended"])
    except (RedisError, OSError) as error:
        message = f"Redis cannot be reached ({type(error).__name__})."
        raise Unavailable(message) from error
    accepted, ended = answer
    if accepted is None and ended is None:
        return None
    return Taken(accepted=int(accepted or 0), state=ended.decode() if ended else RECEIVING)


async def end(
    client: redis.asyncio.Redis, namespace: str, batch_id: uuid.UUID, state: str = COMPLETE
) -> None:
    """Say that nothing more will come of a batch whose parts were appended one by one."""
    key = Keys(namespace).batch(batch_id)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.hset(key, "ended", state)
        pipeline.expire(key, BATCH_SECONDS)
        await pipeline.execute()


def forget_finished(client: redis.Redis, namespace: str, applied: Mapping[uuid.UUID, int]) -> None:
    """Forget batches that are complete and of which everything has been applied.

    Args:
        client: of a worker.
        namespace: of the keys.
        applied: documents stored, stale or rejected, per batch.
    """
    keys = Keys(namespace)
    with client.pipeline(transaction=False) as pipeline:
        for batch_id in applied:
            pipeline.hmget(keys.batch(batch_id), ["accepted", "ended"])
        answers = pipeline.execute()
    finished = [
        keys.batch(batch_id)
        for (batch_id, count), (accepted, ended) in zip(applied.items(), answers, strict=True)
        if ended == COMPLETE.encode() and int(accepted or 0) == count
    ]
    if finished:
        client.delete(*finished)
