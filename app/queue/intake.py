"""Group commit: documents that arrive together become one durable append (design 2.1).

The first document that finds its lane's flusher idle starts it. It sends what has gathered as one
chunk and resolves every waiting request when Redis has answered; what arrives meanwhile is the
next chunk. No timer: an idle service answers after one round trip, a busy one fills its chunks.
Each lane has a flusher of its own, so that no lane waits for another's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis.asyncio

from app.domain.documents import DEFAULT_TENANT, Lane
from app.domain.errors import DocyardError, QueueFull, QueueUnavailable
from app.queue.append import Appender, BatchPart
from app.queue.messages import ChunkMessage, chunk_message
from app.queue.names import Keys
from app.queue.server import ServerWatch

HIGH_WATER = 500_000


def high_water_marks(documents: int = HIGH_WATER) -> dict[Lane, int]:
    """Return each lane's mark: bulk loads stop first and leave the rest to single documents."""
    return {
        Lane.HIGH: documents,
        Lane.NORMAL: documents,
        Lane.BULK: max(1, documents // 2),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """Bounds of the intake.

    Attributes:
        chunk_documents: most documents in a chunk.
        chunk_bytes: most bytes in a chunk; a single larger document goes alone.
        waiting_bytes: most bytes that wait in this process.
        high_water: queued documents per lane from which on it is full.
        deadline_seconds: how long an append in doubt is repeated before the answer is 503.
    """

    chunk_documents: int = 500
    chunk_bytes: int = 1 << 20
    waiting_bytes: int = 64 << 20
    high_water: Mapping[Lane, int] = field(default_factory=high_water_marks)
    deadline_seconds: float = 5.0


@dataclass(slots=True)
class _Waiting:
    """One document, or a batch that goes as a whole, with the request that waits for it."""

    documents: Sequence[bytes]
    size: int
    batch: BatchPart | None
    appended: asyncio.Future[None]


class Intake:
    """Takes documents in for one web process; lives on its event loop."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        namespace: str,
        limits: IntakeLimits | None = None,
        server: ServerWatch | None = None,
    ) -> None:
        """Keep the parts; nothing is sent yet.

        Args:
            client: its answer time-out bounds each try.
            namespace: prefix of the keys.
            limits: bounds.
            server: hears of each new connection of the client; None asks nothing of the server.
        """
        self._limits = limits or IntakeLimits()
        self._appender = Appender(
            client,
            Keys(namespace),
            high_water=self._limits.high_water,
            deadline_seconds=self._limits.deadline_seconds,
            server=server or ServerWatch(),
        )
        self._waiting: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in Lane}
        self._waiting_bytes = 0
        self._flushers: dict[Lane, asyncio.Task[None]] = {}

    async def submit(self, encoded: bytes, lane: Lane) -> None:
        """Return when Redis has acknowledged the document.

        A caller that is cancelled takes nothing back: the document goes with its chunk.

        Args:
            encoded: the document's JSON, with its ``id``.
            lane: which queue.

        Raises:
            QueueFull: the lane, this process or Redis holds too much already.
            ExceedsQueue: Redis is too small for what comes at once.
            QueueUnavailable: Redis did not confirm; the document may or may not have been taken.
            DurabilityInsufficient: likewise, because Redis promises less than is required.
        """
        await self._wait((encoded,), len(encoded), lane, None)

    async def submit_many(
        self, encoded: Sequence[bytes], lane: Lane, batch: BatchPart | None = None
    ) -> None:
        """Like ``submit``, for documents that are taken all together or not at all."""
        if encoded:
            await self._wait(encoded, sum(map(len, encoded)), lane, batch)

    async def close(self) -> None:
        """Wait until what was submitted is appended or has failed."""
        while self._flushers:
            await asyncio.wait(list(self._flushers.values()))

    def _wait(
        self, documents: Sequence[bytes], size: int, lane: Lane, batch: BatchPart | None
    ) -> asyncio.Future[None]:
        if self._waiting_bytes and self._waiting_bytes + size > self._limits.waiting_bytes:
            raise QueueFull(lane, "this process holds as much as it may", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        appended: asyncio.Future[None] = loop.create_future()
        self._waiting[lane].append(_Waiting(documents, size, batch, appended))
        self._waiting_bytes += size
        if lane not in self._flushers:
            # Runs behind whatever else this turn of the loop brings, which shares the chunk.
            self._flushers[lane] = loop.create_task(self._flush(lane))
        return appended

    async def _flush(self, lane: Lane) -> None:
        waiting = self._waiting[lane]
        try:
            while waiting:
                taken = self._gather(waiting)
                failure = await self._append(lane, taken)
                if isinstance(failure, QueueUnavailable):
                    # Those who came meanwhile have waited as long; one by one they would wait
                    # again, each chunk for its predecessor's deadline.
                    taken += waiting
                    waiting.clear()
                self._settle(taken, failure)
        finally:
            del self._flushers[lane]

    def _gather(self, waiting: deque[_Waiting]) -> list[_Waiting]:
        """Take what fits one chunk, at least one; parts of batches go alone."""
        limits = self._limits
        taken = [waiting.popleft()]
        size, count = taken[0].size, len(taken[0].documents)
        while (
            waiting
            and taken[0].batch is None
            and waiting[0].batch is None
            and size + waiting[0].size <= limits.chunk_bytes
            and count + len(waiting[0].documents) <= limits.chunk_documents
        ):
            taken.append(waiting.popleft())
            size += taken[-1].size
            count += len(taken[-1].documents)
        return taken

    async def _append(self, lane: Lane, taken: Sequence[_Waiting]) -> DocyardError | None:
        documents = [document for one in taken for document in one.documents]
        try:
            await self._appender.append(
                lane, self._split(lane, documents, taken[0].batch), taken[0].batch
            )
        except DocyardError as error:
            return error
        except Exception as error:  # noqa: BLE001  (no request may wait for ever)
            return QueueUnavailable(f"{type(error).__name__}: {error}"[:200])
        return None

    def _settle(self, taken: Sequence[_Waiting], failure: DocyardError | None) -> None:
        for one in taken:
            self._waiting_bytes -= one.size
            if one.appended.done():  # the client went away
                continue
            if failure is None:
                one.appended.set_result(None)
            else:
                one.appended.set_exception(failure)

    def _split(
        self, lane: Lane, documents: Sequence[bytes], batch: BatchPart | None
    ) -> list[ChunkMessage]:
        limits = self._limits
        pieces: list[list[bytes]] = [[]]
        size = 0
        for document in documents:
            if pieces[-1] and (
                size + len(document) > limits.chunk_bytes
                or len(pieces[-1]) == limits.chunk_documents
            ):
                pieces.append([])
                size = 0
            pieces[-1].append(document)
            size += len(document)
        batch_id = batch.batch_id if batch else None
        return [chunk_message(lane, DEFAULT_TENANT, piece, batch_id) for piece in pieces]
