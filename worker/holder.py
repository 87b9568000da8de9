"""A destination's holder: reads what is due, keeps requests in flight, lets go when it is idle.

::

            ┌─────────── rung, low, or a while later ◀───────────┐
            ▼                                                    │
    lease ─▶ read ─▶ queue ─▶ N sending tasks ─▶ results ─▶ flush ─▶ forget the row
            │
            └─ nothing due, nothing in flight, nobody rang: flush, release

Rows are not claimed: the lease says who sends, and what is under way is in memory. A read that
began before a flush committed still returns the rows which that flush has ended, so a row is
forgotten only once a read that began behind its flush has come back (a prototype without this
sent 58 % twice).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import structlog

from app.domain.concurrency import Concurrency, FixedConcurrency
from app.domain.deliveries import Outcome
from app.domain.destinations import Destination
from app.storage.deliveries import DeliveryResult, DueDelivery
from app.storage.leases import Lease
from worker.attempts import Attempts
from worker.outbox import Outbox
from worker.recorder import Recorder
from worker.sender import Target
from worker.workload import Cursor, MemoryBudget, Workload, size_of

LOG = structlog.get_logger(__name__)

SMALL_PAGE_ROWS = 100
LARGE_PAGE_ROWS = 800
"""Pages grow for who is quick; rows of the slow are better read late, when they are up to date."""
QUICK_SECONDS = 0.5
PAGE_BYTES = 4 * 1024 * 1024
MAX_UNRECORDED = 5_000
LINGER_SECONDS = 0.25
LONGEST_POLL_SECONDS = 2.0
"""Reads without a doorbell: for what another process was rung for, and retries that fall due."""
TENURE_SECONDS = 10.0
"""After this a destination may go to another process, if this one has several."""
YIELD_PATIENCE_SECONDS = 1.0
FIRST_READ_PAUSE_SECONDS = 0.5
LONGEST_READ_PAUSE_SECONDS = 5.0
RECORD_PATIENCE_SECONDS = 3.0
CAREFUL_FROM_LOST_LEASES = 2


class Ending(StrEnum):
    """Why a holder let go."""

    IDLE = "idle"
    YIELDED = "yielded"
    BARRED = "barred"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(slots=True)
class Bell:
    """Counts rings for a destination; those that came before a read began are heard by it."""

    rings: int
    heard: int = 0

    @property
    def unheard(self) -> bool:
        """Whether somebody rang since the last read began."""
        return self.rings != self.heard


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderParts:
    """What the holders of a process share.

    Attributes:
        crowded: tells whether the process holds several destinations.
    """

    outbox: Outbox
    recorder: Recorder
    attempts: Attempts
    budget: MemoryBudget
    concurrency: int
    lease_seconds: float
    crowded: Callable[[], bool]


class Holder:
    """Delivers to one destination under one lease; lives on the pump's loop."""

    def __init__(self, lease: Lease, parts: HolderParts, bell: Bell) -> None:
        self.lease = lease
        self._bell = bell
        self.found_work = False
        self._parts = parts
        self._careful = lease.lost_leases >= CAREFUL_FROM_LOST_LEASES
        self._concurrency: Concurrency = FixedConcurrency(1 if self._careful else parts.concurrency)
        self._workload = Workload(parts.budget)
        self._cursor = Cursor()
        self._results = parts.recorder.open(lease, self._on_recorded)
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stop_by: float | None = None
        self._destination: Destination | None = None
        self._target: Target | None = None
        self._barred = False
        self._gone_because: str | None = None
        self._lost = False
        self._yielding = False
        self._more = False
        self._read_at = 0.0
        self._read_pause = FIRST_READ_PAUSE_SECONDS
        self._page_rows = SMALL_PAGE_ROWS
        self._page_began_at = 0.0
        self._poll_seconds = LINGER_SECONDS
        self._tenure_ends_at = self._loop.time() + TENURE_SECONDS
        # The lease was taken a moment ago, in another thread.
        self._valid_until = self._loop.time() + parts.lease_seconds * 0.8

    def wake(self) -> None:
        """Somebody rang."""
        self._wake.set()

    def stop(self, by: float) -> None:
        """Finish; requests that still run at the loop's time ``by`` are given up."""
        self._stop_by = by
        self._wake.set()

    async def run(self) -> Ending:
        """Deliver until there is a reason to let go; the lease is released behind it."""
        keeper = asyncio.create_task(self._keep_lease())
        try:
            ending = await self._deliver()
            await self._finish_requests(ending)
            await self._finish_records()
            await self._disable_gone()
        finally:
            self._give_up_requests()
            self._workload.drop()
            self._parts.recorder.close(self._results)
            keeper.cancel()
            if not self._lost:
                await self._release()
        return Ending.LOST if self._lost else ending

    # Reading

    async def _deliver(self) -> Ending:
        while True:
            self._wake.clear()
            if ending := await self._ending():
                return ending
            if not self._should_read():
                await self._sleep()
                continue
            was_busy = self._busy
            try:
                new = await self._read()
            except Exception as error:  # noqa: BLE001  (a destination's trouble stays its own)
                self._log_failure("delivery.read_failed", error)
                self._read_at = self._loop.time() + self._read_pause
                self._read_pause = min(2 * self._read_pause, LONGEST_READ_PAUSE_SECONDS)
                continue
            self._read_pause = FIRST_READ_PAUSE_SECONDS
            if not (self._barred or new or self._more or was_busy or self._bell.unheard):
                return Ending.IDLE
            self._plan_read(new)
            self._send_more()

    async def _ending(self) -> Ending | None:
        if self._lost:
            return Ending.LOST
        if self._stop_by is not None:
            return Ending.STOPPED
        if self._barred:
            return Ending.BARRED
        if self._loop.time() >= self._tenure_ends_at and await self._may_yield():
            return Ending.YIELDED
        return None

    async def _may_yield(self) -> bool:
        """Pause, so that the lease can change hands between requests; True when none is left."""
        if self._careful or self._parts.crowded():
            self._yielding = True
            if self._sending:
                await asyncio.wait(self._sending, timeout=YIELD_PATIENCE_SECONDS)
            if not self._sending:
                return True
            self._yielding = False
            self._send_more()
        self._tenure_ends_at = self._loop.time() + TENURE_SECONDS
        return False

    @property
    def _busy(self) -> bool:
        return bool(self._sending) or len(self._workload) > 0

    def _should_read(self) -> bool:
        if (
            len(self._workload) >= self._page_rows // 2
            or self._workload.room_bytes <= 0
            or self._results.backlog >= MAX_UNRECORDED
            or not self._lease_is_sure
        ):
            return False
        return self._bell.unheard or self._more or self._loop.time() >= self._read_at

    async def _read(self) -> int:
        max_bytes = min(PAGE_BYTES, self._workload.room_bytes)
        max_rows = self._size_page()
        self._more = False
        self._bell.heard = self._bell.rings
        number = self._workload.begin_read()
        destination, page = await self._parts.outbox.read(
            self.lease,
            after_seq=self._cursor.begin(self._loop.time()),
            max_rows=max_rows,
            max_bytes=max_bytes,
            # While rows are waiting here, a message would tell nothing new.
            clear_doorbell=len(self._workload) == 0,
        )
        self._configure(destination)
        self._cursor.end(page.fresh)
        new = self._workload.admit(number, page)
        full = len(page.fresh) + len(page.retries) >= max_rows
        self._more = bool(page.fresh) and (full or sum(map(size_of, page.fresh)) >= max_bytes)
        self.found_work = self.found_work or new > 0
        return new

    def _size_page(self) -> int:
        now = self._loop.time()
        quick = self._more and now - self._page_began_at < QUICK_SECONDS
        wanted = self._page_rows * 2 if quick else self._page_rows // 2
        self._page_rows = min(max(wanted, SMALL_PAGE_ROWS), LARGE_PAGE_ROWS)
        self._page_began_at = now
        return self._page_rows

    def _configure(self, destination: Destination | None) -> None:
        if destination is None or not destination.enabled:
            self._barred = True
            self._wake.set()
        elif destination != self._destination:
            self._destination = destination
            self._target = Target.of(destination)

    def _plan_read(self, new: int) -> None:
        if new:
            self._poll_seconds = LINGER_SECONDS
        else:
            self._poll_seconds = min(2 * self._poll_seconds, LONGEST_POLL_SECONDS)
        self._read_at = self._loop.time() + self._poll_seconds

    async def _sleep(self) -> None:
        now = self._loop.time()
        until = self._read_at if self._read_at > now else now + LINGER_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()

    # Sending

    def _send_more(self) -> None:
        """Start as many sending tasks as there are rows and places for."""
        for _ in range(len(self._workload) if self._may_send else 0):
            if not self._concurrency.acquire():
                break
            task = asyncio.create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._on_sent)

    @property
    def _may_send(self) -> bool:
        return not (self._yielding or self._barred or self._lost) and (
            self._stop_by is None and self._lease_is_sure
        )

    @property
    def _lease_is_sure(self) -> bool:
        return self._loop.time() < self._valid_until

    async def _send(self) -> None:
        """Send one row after the other in one place of the concurrency limit."""
        has_place = True
        try:
            while has_place and (due := self._take()) is not None:
                outcome = await self._attempt(due)
                self._concurrency.release(outcome)
                has_place = self._concurrency.acquire()
        finally:
            if has_place:
                self._concurrency.release(None)

    def _take(self) -> DueDelivery | None:
        if not self._may_send:
            return None
        if self._more and len(self._workload) <= self._page_rows // 2:
            self._wake.set()
        return self._workload.take()

    async def _attempt(self, due: DueDelivery) -> Outcome | None:
        target = self._target
        try:
            ended = self._parts.attempts.without_request(due)
            if ended is not None or target is None:
                if ended is not None:
                    self._results.add(ended)
                return None
            if self._careful:
                await self._parts.outbox.mark_attempts(self.lease, [due.key])
            attempted = await self._parts.attempts.make(due, target)
            self._results.add(attempted.result)
            if attempted.step.disable_destination:
                self._gone_because = attempted.outcome.error
                self._barred = True
                self._wake.set()
        except Exception as error:  # noqa: BLE001  (the row stays pending, for the next lease)
            self._log_failure("delivery.attempt_failed", error)
            return None
        else:
            return attempted.outcome
        finally:
            self._workload.ended(due)

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not self._sending:
            self._read_at = min(self._read_at, self._loop.time() + LINGER_SECONDS)
            self._wake.set()

    def _on_recorded(self, results: Sequence[DeliveryResult]) -> None:
        self._workload.recorded([one.key for one in results])
        if self._more:
            self._wake.set()

    # Letting go

    async def _finish_requests(self, ending: Ending) -> None:
        if ending is Ending.LOST:
            self._give_up_requests()
        while self._sending and not self._lost:
            if self._stop_by is not None and self._loop.time() >= self._stop_by:
                # Not attempted, as far as anybody will know: the row stays as it is.
                self._give_up_requests()
            await asyncio.wait(self._sending, timeout=LINGER_SECONDS)

    def _give_up_requests(self) -> None:
        for task in self._sending:
            task.cancel()

    async def _finish_records(self) -> None:
        """Wait until everything is recorded; without end, unless we must stop or have lost."""
        draining = asyncio.create_task(self._results.drain())
        lost_patience_at = self._loop.time() + RECORD_PATIENCE_SECONDS
        while not draining.done():
            await asyncio.wait({draining}, timeout=LINGER_SECONDS)
            limit = lost_patience_at if self._lost else None
            if self._stop_by is not None:
                limit = self._stop_by + RECORD_PATIENCE_SECONDS
            if limit is not None and self._loop.time() > limit and not draining.done():
                LOG.error(
                    "delivery.results_lost",
                    destination_id=str(self.lease.destination_id),
                    results=self._results.backlog,
                )
                draining.cancel()
                await asyncio.wait({draining})

    async def _disable_gone(self) -> None:
        if self._gone_because is None or self._destination is None:
            return
        LOG.warning(
            "destination.disabled",
            destination_id=str(self.lease.destination_id),
            reason=self._gone_because,
        )
        try:
            await self._parts.outbox.disable(self.lease, self._destination.url, self._gone_because)
        except Exception as error:  # noqa: BLE001  (the next 410 will try again)
            self._log_failure("destination.disable_failed", error)

    async def _release(self) -> None:
        try:
            await self._parts.outbox.release(self.lease)
        except Exception as error:  # noqa: BLE001  (it runs out by itself)
            self._log_failure("lease.release_failed", error)

    # The lease

    async def _keep_lease(self) -> None:
        pause = self._parts.lease_seconds / 3
        while True:
            await asyncio.sleep(pause)
            began_at = self._loop.time()
            try:
                renewal = await self._parts.outbox.renew(self.lease)
            except Exception as error:  # noqa: BLE001  (without certainty nothing is sent)
                self._log_failure("lease.renew_failed", error)
                pause = min(1.0, self._parts.lease_seconds / 3)
                continue
            if not renewal.kept:
                LOG.warning("lease.lost", destination_id=str(self.lease.destination_id))
                self._lost = True
                self._give_up_requests()
                self._wake.set()
                return
            pause = self._parts.lease_seconds / 3
            self._valid_until = began_at + self._parts.lease_seconds
            self._configure(renewal.destination)
            self._send_more()

    def _log_failure(self, event: str, error: Exception) -> None:
        LOG.warning(
            event,
            destination_id=str(self.lease.destination_id),
            error=f"{type(error).__name__}: {error}",
        )
