"""What Redis knows of a batch: how much of it was accepted, and whether more may come.

An upload shows every few seconds that it goes on, by renewing how long Redis remembers its batch:
a process that was killed could not say that it has ended.

Counted inside the append, so it is as durable as the documents. A worker forgets it once every
accepted document has been applied: from then on the sums in Postgres say the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import redis
import redis.asyncio
from redis.exceptions import RedisError

from app.domain.errors import Unavailable
from app.queue.append import BATCH_SECONDS
from app.queue.names import Keys

RECEIVING, COMPLETE, CUT_OFF = "receiving", "complete", "cut_off"
RENEW_SECONDS = 10.0
SILENT_SECONDS = 60
"""Without a sign of life, behind which an upload has ended; it may wait for Redis itself."""


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
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.hmget(key, ["accepted", "ended"])
            pipeline.ttl(key)
            (accepted, ended), seconds_left = await pipeline.execute()
    except (RedisError, OSError) as error:
        message = f"Redis cannot be reached ({type(error).__name__})."
        raise Unavailable(message) from error
    if accepted is None and ended is None:
        return None
    if ended is not None:
        state = ended.decode()
    else:
        state = RECEIVING if BATCH_SECONDS - seconds_left <= SILENT_SECONDS else CUT_OFF
    return Taken(accepted=int(accepted or 0), state=state)


async def begin(client: redis.asyncio.Redis, namespace: str, batch_id: uuid.UUID) -> None:
    """Say that more comes of a batch, which may have ended before."""
    key = Keys(namespace).batch(batch_id)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.hdel(key, "ended")
        pipeline.hincrby(key, "accepted", 0)
        pipeline.expire(key, BATCH_SECONDS)
        await pipeline.execute()


async def renew(client: redis.asyncio.Redis, namespace: str, batch_id: uuid.UUID) -> None:
    """Show that a batch is still being received."""
    await client.expire(Keys(namespace).batch(batch_id), BATCH_SECONDS)


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
