"""The oldest document that may still come out of the queue."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.client import Pipeline

from app.domain.errors import Unavailable
from app.domain.identifiers import made_at
from app.queue.connection import SERVER_ERRORS
from app.queue.names import LANES, Keys

MOST_ASKED = 20_000
"""Messages of a queue whose ages are looked at; Redis takes about a millisecond for them."""
CLOCKS_DIFFER = timedelta(minutes=10)
"""An id from further ahead was given by a clock that is wrong, and says nothing."""


def queued_since(client: redis.Redis, namespace: str) -> datetime | None:
    """Return when the oldest document was accepted that is not settled; now when nothing waits.

    Whatever has a body counts: waiting, delayed, given up, or taken by a worker, dead or alive. The
    head of a list is not enough: what a dead worker held is put back behind younger ones.

    Returns:
        None when that cannot be told: too much waits, or an id has no time that can be true.
    """
    keys, now = Keys(namespace), datetime.now(UTC)
    bodies = [
        body
        for lane in LANES
        for body in (keys.bodies(lane), keys.bodies(f"{lane}.DQ"), f"{keys.dead(lane)}.msgs")
    ]
    with client.pipeline(transaction=True) as pipeline:
        for body in bodies:
            pipeline.hlen(body)
        if max(pipeline.execute()) > MOST_ASKED:
            return None
        for body in bodies:
            pipeline.hkeys(body)
        answers: list[list[Any]] = pipeline.execute()
    oldest = now
    for message_id in (one for answer in answers for one in answer):
        at = _time_of(message_id)
        if at is None or at > now + CLOCKS_DIFFER:
            return None
        oldest = min(oldest, at)
    return oldest


def _time_of(message_id: bytes) -> datetime | None:
    try:
        return made_at(uuid.UUID(message_id.decode()))
    except ValueError:
        return None


def last_accepted(client: redis.Redis, namespace: str) -> int:
    """Return the order number of the last document that was accepted.

    A Redis that has given none, perhaps because somebody emptied it, tells its time: what it gives
    from now on is larger, and so it stands for whatever was accepted before.

    Raises:
        Unavailable: Redis did not say.
    """
    pipeline = client.pipeline(transaction=False)
    _ask(pipeline, namespace)
    try:
        return _number(pipeline.execute())
    except SERVER_ERRORS as error:
        raise _unavailable(error) from error


async def last_accepted_async(client: redis.asyncio.Redis, namespace: str) -> int:
    """Do the same on an event loop."""
    pipeline = client.pipeline(transaction=False)
    _ask(pipeline, namespace)
    try:
        return _number(await pipeline.execute())
    except SERVER_ERRORS as error:
        raise _unavailable(error) from error


def _ask(pipeline: Pipeline | AsyncPipeline, namespace: str) -> None:
    pipeline.get(Keys(namespace).seq)
    pipeline.time()


def _number(answers: Sequence[Any]) -> int:
    last, (seconds, microseconds) = answers
    return int(last or seconds * 1_000_000 + microseconds)


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"Redis cannot be reached ({type(error).__name__}).")
