"""Dead letters leave Redis: in a ``noeviction`` server they would fill it and close the intake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
import redis

from app.queue.names import Keys

BATCH = 100


class DeadLetter(NamedTuple):
    """A message that was given up."""

    message_id: str
    queue: str
    body: bytes
    reason: str | None


def move_dead_letters(
    client: redis.Redis,
    namespace: str,
    queues: Iterable[str],
    keep: Callable[[Sequence[DeadLetter]], None],
) -> int:
    """Hand dead letters to ``keep`` and remove them from Redis once it has returned.

    A crash between the two repeats them, so ``keep`` must tell twins by ``message_id``, also of
    those that are gone by then.
    """
    keys, moved = Keys(namespace), 0
    for queue in queues:
        dead = keys.dead(queue)
        while letters := _first(client, dead, queue):
            keep(letters)
            ids = [letter.message_id for letter in letters]
            with client.pipeline(transaction=True) as pipeline:
                pipeline.zrem(dead, *ids)
                pipeline.hdel(f"{dead}.msgs", *ids)
                pipeline.execute()
            moved += len(letters)
    return moved


def _first(client: redis.Redis, dead: str, queue: str) -> list[DeadLetter]:
    ids: Any = client.zrange(dead, 0, BATCH - 1)
    bodies: Any = client.hmget(f"{dead}.msgs", ids) if ids else []
    return [
        DeadLetter(one.decode(), queue, body or b"", _reason(body))
        for one, body in zip(ids, bodies, strict=True)
    ]


def _reason(body: bytes | None) -> str | None:
    """Return the last line of the traceback that Dramatiq keeps in a failed message."""
    try:
        traceback = orjson.loads(body or b"")["options"]["traceback"]
    except orjson.JSONDecodeError:
        return "not a message: its body is no JSON"
    except (KeyError, TypeError):
        return None
    lines = str(traceback).strip().splitlines()
    return lines[-1] if lines else None
