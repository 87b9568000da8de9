"""One durable append: sent, and repeated under the same chunk ids while its fate is in doubt."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from app.domain.documents import Lane
from app.domain.errors import ExceedsQueue, QueueFull, QueueUnavailable
from app.queue.messages import ChunkMessage
from app.queue.names import Keys
from app.queue.server import ServerWatch

SCRIPT = (Path(__file__).parent / "append.lua").read_bytes()
SCRIPT_SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
"""Redis names scripts by it."""

BATCH_SECONDS = 7 * 24 * 3600
"""How long Redis remembers a batch behind its last append; a finished one is forgotten sooner."""
MARK_SECONDS = 120
"""How long a repeat finds the first try; both end long before, connections included."""
PATIENCE_SECONDS = 1.0
"""For what certainly was not appended: a restart of Redis need not be an error to every client."""
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25

MEMORY_SHARE = {Lane.HIGH: 0.8, Lane.NORMAL: 0.8, Lane.BULK: 0.6}
"""Of ``maxmemory``, from which on a lane takes nothing: a full Redis cannot even be drained, since
fetching and acknowledging write as well (S4). Bulk loads leave room to single documents."""
LARGE_BYTES = 1 << 20
OVERHEAD = 1.25
"""Bytes in Redis per byte appended: its allocator rounds up."""

_FULL, _SHORT, _NEVER = -1, -2, -3


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Says of an append that it is part of a batch.

    Attributes:
        ends: nothing of the batch comes behind it.
    """

    batch_id: uuid.UUID
    ends: bool = False


class _NotAppendedError(Exception):
    """This try certainly left nothing behind."""


class Appender:
    """Appends chunks for one web process."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        *,
        high_water: Mapping[Lane, int],
        deadline_seconds: float,
        server: ServerWatch,
    ) -> None:
        """Keep the parts; nothing is sent yet.

        Args:
            client: its answer time-out bounds each try.
            keys: where things are.
            high_water: queued documents from which on a lane is full.
            deadline_seconds: how long an append in doubt is repeated.
            server: what is known of the server, and required of it.
        """
        self._client = client
        self._pool = client.connection_pool
        self._keys = keys
        self._high_water = high_water
        self._deadline_seconds = deadline_seconds
        self._server = server

    async def append(
        self, lane: Lane, chunks: Sequence[ChunkMessage], batch: BatchPart | None = None
    ) -> None:
        """Return when Redis has acknowledged all the chunks; on an error it has none of them.

        Or, behind ``QueueUnavailable``, it may have them all: the answer was lost and no repeat
        came through.

        Raises:
            QueueFull: the lane is above its mark, or Redis is short of memory.
            ExceedsQueue: Redis is too small for it, even when empty.
            QueueUnavailable: Redis did not confirm.
            DurabilityInsufficient: it promises less than is required.
        """
        size = int(sum(len(one.head) + len(one.tail) for one in chunks) * OVERHEAD)
        command = self._command(lane, chunks, batch, size)
        started, pause, in_doubt = time.monotonic(), FIRST_PAUSE_SECONDS, False
        while True:
            try:
                if size > LARGE_BYTES:
                    await self._refuse_without_room(lane, size)
                status, number = await self._send(command)
                break
            except _NotAppendedError as error:
                cause: BaseException | None = error.__cause__
            except OutOfMemoryError as error:
                raise QueueFull(lane, "Redis is out of memory") from error
            except (RedisError, OSError) as error:
                cause, in_doubt = error, True
            waits = self._deadline_seconds if in_doubt else PATIENCE_SECONDS
            if time.monotonic() + pause - started > min(waits, self._deadline_seconds):
                raise QueueUnavailable(_reason(cause)) from cause
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if status == _FULL:
            raise QueueFull(lane, f"{number} documents are queued in it")
        if status == _SHORT:
            raise QueueFull(lane, "Redis is short of memory")
        if status == _NEVER:
            raise ExceedsQueue(int(number))

    async def _refuse_without_room(self, lane: Lane, size: int) -> None:
        """Ask before a large append: on its way into the script it is in Redis' memory already."""
        try:
            memory: dict[str, Any] = await self._client.info("memory")
        except (RedisError, OSError) as error:
            raise _NotAppendedError from error
        usable = memory.get("maxmemory", 0) * MEMORY_SHARE[lane]
        if not usable:
            return
        if 2 * size > usable:
            raise ExceedsQueue(memory["maxmemory"])
        if memory.get("used_memory", 0) + 2 * size > usable:
            raise QueueFull(lane, "Redis is short of memory")

    async def _send(self, command: Sequence[Any]) -> tuple[int, Any]:
        """Send the append once.

        By the pool's own connection and not the client: only so can a connection that was refused
        (nothing was sent) be told from one that broke (who knows).
        """
        try:
            connection = await self._pool.get_connection()
        except (RedisError, OSError) as error:
            raise _NotAppendedError from error
        try:
            try:
                # Here, because a new connection has just asked its server.
                await self._server.require_durability(connection)
            except (RedisError, OSError) as error:
                raise _NotAppendedError from error
            try:
                await connection.send_command("EVALSHA", SCRIPT_SHA, *command)
                answer = await connection.read_response()
            except NoScriptError:
                await connection.send_command("EVAL", SCRIPT, *command)
                answer = await connection.read_response()
        except OutOfMemoryError:
            raise
        except (ResponseError, BusyLoadingError) as error:
            # The server's word: loading, read-only, disk full … . It did not run the script.
            if isinstance(error, ReadOnlyError):
                # It was demoted, and its name may lead to another by now; this connection never.
                await connection.disconnect()
            raise _NotAppendedError from error
        finally:
            await self._pool.release(connection)
        # Again: a connection that was idle may have been renewed on the way.
        self._server.confirm_durability()
        return answer[0], answer[1]

    def _command(
        self, lane: Lane, chunks: Sequence[ChunkMessage], batch: BatchPart | None, size: int
    ) -> list[Any]:
        names, call_id = self._keys, chunks[0].chunk_id
        keys = [
            names.ids(lane),
            names.bodies(lane),
            names.bodies(f"{lane}.DQ"),
            names.seq,
            names.accepted,
            names.queued,
            names.appended(call_id),
        ]
        if batch is not None:
            keys.append(names.batch(batch.batch_id))
        command: list[Any] = [
            len(keys),
            *keys,
            lane.value,
            names.wake(lane),
            self._high_water[lane],
            MARK_SECONDS,
            # All chunks of a call come together, so one mark stands for all.
            call_id.bytes,
            BATCH_SECONDS,
            int(batch is not None and batch.ends),
            size,
            MEMORY_SHARE[lane],
        ]
        for chunk in chunks:
            command += (chunk.redis_message_id, chunk.count, chunk.head, chunk.tail)
        return command


def _reason(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
