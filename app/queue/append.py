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
    RedisError,
    ResponseError,
)

from app.domain.documents import Lane
from app.domain.errors import QueueFull, QueueUnavailable
from app.queue.memory import MemoryWatch
from app.queue.messages import ChunkMessage
from app.queue.names import Keys

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

_FULL = -1


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
    ) -> None:
        """Keep the parts; nothing is sent yet.

        Args:
            client: its answer time-out bounds each try.
            keys: where things are.
            high_water: queued documents from which on a lane is full.
            deadline_seconds: how long an append in doubt is repeated.
        """
        self._pool = client.connection_pool
        self._keys = keys
        self._high_water = high_water
        self._deadline_seconds = deadline_seconds
        self._memory = MemoryWatch(client)

    async def append(
        self, lane: Lane, chunks: Sequence[ChunkMessage], batch: BatchPart | None = None
    ) -> None:
        """Return when Redis has acknowledged all the chunks; on an error it has none of them.

        Or, behind ``QueueUnavailable``, it may have them all: the answer was lost and no repeat
        came through.

        Raises:
            QueueFull: the lane is above its mark, or Redis is short of memory.
            QueueUnavailable: Redis did not confirm.
        """
        command = self._command(lane, chunks, batch)
        size = sum(len(chunk.tail) for chunk in chunks)
        started, pause, in_doubt = time.monotonic(), FIRST_PAUSE_SECONDS, False
        while True:
            try:
                await self._refuse_when_short(lane, size)
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

    async def _refuse_when_short(self, lane: Lane, size: int) -> None:
        try:
            short = await self._memory.short(size)
        except (RedisError, OSError) as error:
            raise _NotAppendedError from error
        if short:
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
                await connection.send_command("EVALSHA", SCRIPT_SHA, *command)
                answer = await connection.read_response()
            except NoScriptError:
                await connection.send_command("EVAL", SCRIPT, *command)
                answer = await connection.read_response()
        except OutOfMemoryError:
            raise
        except (ResponseError, BusyLoadingError) as error:
            # The server's word: loading, read-only, disk full … . It did not run the script.
            raise _NotAppendedError from error
        finally:
            await self._pool.release(connection)
        return answer[0], answer[1]

    def _command(
        self, lane: Lane, chunks: Sequence[ChunkMessage], batch: BatchPart | None
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
        ]
        for chunk in chunks:
            command += (chunk.redis_message_id, chunk.count, chunk.head, chunk.tail)
        return command


def _reason(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
