"""Group commit: documents that arrive together become one durable append (design 2.1).

The first document that finds the flusher idle starts it. It sends what has gathered as one chunk
and resolves every waiting request when Redis has answered; what arrives meanwhile is the next
chunk. No timer: an idle service answers after one round trip, a busy one fills its chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import OutOfMemoryError, RedisError

from app.domain.documents import DEFAULT_TENANT, Lane
from app.domain.errors import QueueFull, QueueUnavailable
from app.queue.messages import ChunkMessage, chunk_message
from app.queue.names import Keys

APPEND = (Path(__file__).parent / "append.lua").read_text(encoding="utf-8")
MARK_SECONDS = 600
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
MEMORY_SHARE = 0.8
"""Share of ``maxmemory`` from which on nothing is taken in: a full Redis cannot even be drained."""
MEMORY_LOOK_SECONDS = 1.0
MEMORY_LOOK_SHARE = 0.02
"""Look again after appending this share of ``maxmemory``, however little time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """Bounds of the intake.

    Attributes:
        chunk_documents: most documents in a chunk.
        chunk_bytes: most bytes in a chunk; a single larger document goes alone.
        waiting_bytes: most bytes that wait in this process.
        lane_messages: chunk messages in a lane from which on it is full.
        deadline_seconds: how long a doubtful append is repeated before the answer is 503.
    """

    chunk_documents: int = 500
    chunk_bytes: int = 1 << 20
    waiting_bytes: int = 64 << 20
    lane_messages: int = 50_000
    deadline_seconds: float = 4.0


@dataclass(slots=True)
class _Waiting:
    """One document, or a batch that goes as a whole, with the request that waits for it."""

    documents: Sequence[bytes]
    size: int
    appended: asyncio.Future[None]


class Intake:
    """Takes documents in for one web process; lives on its event loop."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        namespace: str,
        limits: IntakeLimits | None = None,
    ) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._limits = limits or IntakeLimits()
        self._script = client.register_script(APPEND)
        self._waiting: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in Lane}
        self._waiting_bytes = 0
        self._flusher: asyncio.Task[None] | None = None
        self._memory = _MemoryWatch(client)

    async def submit(self, encoded: bytes, lane: Lane) -> None:
        """Return when Redis has acknowledged the document.

        A caller that is cancelled takes nothing back: the document goes with its chunk.

        Args:
            encoded: the document's JSON, with its ``id``.
            lane: which queue.

        Raises:
            QueueFull: the lane, this process or Redis holds too much already.
            QueueUnavailable: Redis did not confirm; the document may or may not have been taken.
        """
        await self.submit_many((encoded,), lane)

    async def submit_many(self, encoded: Sequence[bytes], lane: Lane) -> None:
        """Like ``submit``, for documents that are taken all together or not at all."""
        size = sum(map(len, encoded))
        if self._waiting_bytes + size > self._limits.waiting_bytes and self._waiting_bytes:
            reason = "this process holds as much as it may"
            raise QueueFull(lane, reason, retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        appended: asyncio.Future[None] = loop.create_future()
        self._waiting[lane].append(_Waiting(encoded, size, appended))
        self._waiting_bytes += size
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        await asyncio.shield(appended)

    async def close(self) -> None:
        """Wait until what was submitted is appended or has failed."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _flush(self) -> None:
        try:
            while (lane := self._next_lane()) is not None:
                await self._append_one(lane, self._gather(lane))
        finally:
            self._flusher = None

    def _next_lane(self) -> Lane | None:
        return next((lane for lane, waiting in self._waiting.items() if waiting), None)

    def _gather(self, lane: Lane) -> list[_Waiting]:
        waiting, limits = self._waiting[lane], self._limits
        taken = [waiting.popleft()]
        size, count = taken[0].size, len(taken[0].documents)
        while (
            waiting
            and size + waiting[0].size <= limits.chunk_bytes
            and count + len(waiting[0].documents) <= limits.chunk_documents
        ):
            taken.append(waiting.popleft())
            size += taken[-1].size
            count += len(taken[-1].documents)
        return taken

    async def _append_one(self, lane: Lane, taken: list[_Waiting]) -> None:
        documents = [document for one in taken for document in one.documents]
        failure: Exception | None = None
        try:
            await self._append(lane, self._split(lane, documents))
        except (QueueFull, QueueUnavailable) as error:
            failure = error
        except Exception as error:  # noqa: BLE001  (no request may wait for ever)
            failure = QueueUnavailable(type(error).__name__)
        self._waiting_bytes -= sum(one.size for one in taken)
        for one in taken:
            if one.appended.done():
                continue
            if failure is None:
                one.appended.set_result(None)
            else:
                one.appended.set_exception(failure)
                # Read, so that a request which went away leaves no "never retrieved" behind.
                one.appended.exception()

    def _split(self, lane: Lane, documents: list[bytes]) -> list[ChunkMessage]:
        limits = self._limits
        pieces: list[list[bytes]] = []
        size = limits.chunk_bytes + 1
        for document in documents:
            if size + len(document) > limits.chunk_bytes or len(pieces[-1]) >= (
                limits.chunk_documents
            ):
                pieces.append([])
                size = 0
            pieces[-1].append(document)
            size += len(document)
        return [chunk_message(lane, DEFAULT_TENANT, piece) for piece in pieces]

    async def _append(self, lane: Lane, chunks: list[ChunkMessage]) -> None:
        """Append chunks; repeat under the same chunk ids while the answer is in doubt."""
        keys, arguments = self._call(lane, chunks)
        size = sum(len(chunk.tail) for chunk in chunks)
        deadline = time.monotonic() + self._limits.deadline_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._memory.refuse_when_short(lane, size)
                answer = await self._script(keys=keys, args=arguments)
                break
            except OutOfMemoryError as error:
                reason = "Redis is out of memory"
                raise QueueFull(lane, reason) from error
            except (RedisError, OSError) as error:
                # Refused, cut off, loading, read-only, or too slow: it may have been appended.
                if time.monotonic() + pause > deadline:
                    raise QueueUnavailable(_reason(error)) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if answer[0] == -1:
            reason = f"{answer[1]} messages wait in it"
            raise QueueFull(lane, reason)

    def _call(self, lane: Lane, chunks: list[ChunkMessage]) -> tuple[list[str], list[Any]]:
        names = self._keys
        keys = [names.ids(lane), names.bodies(lane), names.seq, names.accepted]
        arguments: list[Any] = [
            lane.value,
            names.wake(lane),
            self._limits.lane_messages,
            MARK_SECONDS,
        ]
        for chunk in chunks:
            keys.append(names.appended(chunk.chunk_id))
            arguments += (chunk.redis_message_id, chunk.count, chunk.head, chunk.tail)
        return keys, arguments


class _MemoryWatch:
    """Refuses intake long before Redis is full: then fetch and ack would fail as well (S4)."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._look_at = 0.0
        self._bytes_left = 0.0
        self._short = False

    async def refuse_when_short(self, lane: Lane, size: int) -> None:
        """Raise QueueFull while memory is short; ask the server at most as often as needed."""
        self._bytes_left -= size
        if time.monotonic() >= self._look_at or self._bytes_left < 0:
            info: dict[str, Any] = await self._client.info("memory")
            used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
            self._short = bool(most) and used + size > most * MEMORY_SHARE
            self._bytes_left = most * MEMORY_LOOK_SHARE if most else float("inf")
            self._look_at = time.monotonic() + MEMORY_LOOK_SECONDS
        if self._short:
            reason = "Redis is short of memory"
            raise QueueFull(lane, reason)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
