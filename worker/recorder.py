"""Results on their way to Postgres: gathered per destination, written in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from app.storage.deliveries import DeliveryResult
from app.storage.leases import Lease
from worker.outbox import Outbox

LOG = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.1
FLUSH_ROWS = 100
FLUSHES_PER_SECOND = 100
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0

OnRecorded = Callable[[Sequence[DeliveryResult]], None]


class Recorder:
    """Writes the results of a process; each destination's group is a transaction of its own.

    A group is written 100 ms behind its first result or as soon as it has 100. With many busy
    destinations the wait grows, so that small transactions do not take the place of deliveries.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._groups = 0

    def open(self, lease: Lease, on_recorded: OnRecorded) -> ResultGroup:
        """Return the group of a lease; ``on_recorded`` hears of results that are committed."""
        self._groups += 1
        return ResultGroup(self, lease, on_recorded)

    def close(self, group: ResultGroup) -> None:
        """Forget a group; what it has not written by now is lost, and will be sent again."""
        self._groups -= 1
        group.cancel()

    @property
    def flush_seconds(self) -> float:
        """How long a group waits for more."""
        return max(FLUSH_SECONDS, self._groups / FLUSHES_PER_SECOND)


class ResultGroup:
    """Results under one lease; one transaction at a time, in the order in which they came."""

    def __init__(self, recorder: Recorder, lease: Lease, on_recorded: OnRecorded) -> None:
        self._recorder = recorder
        self._lease = lease
        self._on_recorded = on_recorded
        self._waiting: list[DeliveryResult] = []
        self._in_transaction = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> int:
        """How many results are not committed yet."""
        return len(self._waiting) + self._in_transaction

    def add(self, result: DeliveryResult) -> None:
        """Take a result; it will be written soon."""
        self._waiting.append(result)
        if self._flushing is None:
            self._schedule()

    async def drain(self) -> None:
        """Write all there is now; returns when it is committed."""
        while self._flushing or self._waiting:
            self._start()
            if self._flushing:
                await asyncio.shield(self._flushing)

    def cancel(self) -> None:
        """Stop writing."""
        self._disarm()
        if self._flushing:
            self._flushing.cancel()
        self._waiting.clear()

    def _schedule(self) -> None:
        if len(self._waiting) >= FLUSH_ROWS:
            self._start()
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._recorder.flush_seconds, self._start
            )

    def _start(self) -> None:
        self._disarm()
        if self._flushing is None and self._waiting:
            results, self._waiting = self._waiting, []
            self._in_transaction = len(results)
            self._flushing = asyncio.create_task(self._flush(results))

    def _disarm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def _flush(self, results: list[DeliveryResult]) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while True:
                try:
                    counts = await self._recorder.outbox.record(self._lease, results)
                    break
                except Exception as error:  # noqa: BLE001  (a result is kept until it is written)
                    LOG.warning(
                        "delivery.record_failed",
                        destination_id=str(self._lease.destination_id),
                        results=len(results),
                        error=str(error),
                        again_in=pause,
                    )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            LOG.debug(
                "delivery.recorded",
                destination_id=str(self._lease.destination_id),
                **{state.value: count for state, count in counts.items()},
            )
            self._on_recorded(results)
        finally:
            self._flushing = None
            self._in_transaction = 0
        self._schedule()
