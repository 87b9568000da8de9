"""A destination's holder: reads what is due, keeps requests in flight, lets go when it is idle.

::

            ┌─────────── rung, low, or a while later ◀───────────┐
            ▼                                                    │
    lease ─▶ read ─▶ queue ─▶ N sending tasks ─▶ results ─▶ flush ─▶ forget the row
            │
            └─ nothing due, nothing in flight, nobody rang: flush, release

Rows are not claimed: the lease says who sends, and what is under way is in memory. A read that
began before a flush committed still returns the rows which that flush has ended, so a row is
forgotten only when a read begins behind its flush (a prototype without this sent 58 % twice).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from app.domain.concurrency import Bounds
from app.domain.delivery_rules import MAX_CONCURRENCY
from app.domain.destinations import Destination
from app.domain.throttle import Throttle, ThrottleState
from app.storage.deliveries import DeliveryResult
from app.storage.due import Selection
from app.storage.leases import Lease
from worker.conclusions import Attempting
from worker.dispatch import Dispatch
from worker.lease_keeper import LeaseKeeper
from worker.outbox import Outbox
from worker.reading import LINGER_SECONDS, PAGE_BYTES, Cursor, Schedule
from worker.recorder import Recorder
from worker.settling import Settling
from worker.targets import TargetUnusable
from worker.workload import Budget, Unit, Workload

LOG = structlog.get_logger(__name__)

MAX_UNRECORDED = 5_000
TENURE_SECONDS = 10.0
"""After this a destination may go to another process, if this one has several."""
YIELD_PATIENCE_SECONDS = 1.0
RECORD_PATIENCE_SECONDS = 3.0
STALE_SECONDS = 10.0
"""A queue that was never empty for so long is read again: its documents may have been replaced."""


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
        memory: bytes of content.
        sockets: requests in flight.
        concurrency: requests in flight to one destination, at most, where it says nothing else.
        crowded: tells whether the process holds several destinations.
    """

    outbox: Outbox
    recorder: Recorder
    attempts: Attempting
    memory: Budget
    sockets: Budget
    concurrency: int
    crowded: Callable[[], bool]


class Holder:
    """Delivers to one destination under one lease; lives on the pump's loop."""

    def __init__(self, lease: Lease, parts: HolderParts, bell: Bell) -> None:
        """Take up a destination.

        Args:
            lease: taken a moment ago.
            parts: of the process.
            bell: of the destination; outlives the holder.
        """
        self.lease = lease
        self.found_work = False
        self._parts = parts
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._throttle = Throttle(
            Bounds(max=MAX_CONCURRENCY),
            state=lease.throttle,
            handed_over=lease.lost_leases == 0,
            now=self._loop.time(),
        )
        self._workload = Workload(parts.memory)
        self._cursor = Cursor()
        self._schedule = Schedule()
        self._results = parts.recorder.open(lease, self._on_recorded)
        self._settling = Settling(
            lease,
            parts.attempts,
            parts.outbox,
            workload=self._workload,
            results=self._results,
            on_change=self._on_change,
        )
        self._dispatch = Dispatch(
            self._throttle,
            parts.sockets,
            waiting=self._waiting,
            take=self._take,
            settle=self._settling.settle,
            on_drained=self._on_drained,
        )
        self._tenure_ends_at = self._loop.time() + TENURE_SECONDS
        self._emptied_at = self._loop.time()
        self._wake = asyncio.Event()
        self._destination: Destination | None = None
        self._barred = False
        self._blocked_because: str | None = None
        self._noted_blocked: str | None = ""
        self._yielding = False
        self._stop_by: float | None = None
        self._keeper = LeaseKeeper(
            lease,
            parts.outbox,
            throttle=self._throttle_state,
            settling=self._settling,
            on_renewed=self._on_renewed,
            on_lost=self._on_lost,
        )

    def wake(self) -> None:
        """Somebody rang."""
        self._wake.set()

    def stop(self, by: float) -> None:
        """Finish; requests that still run at the loop's time ``by`` are given up."""
        self._stop_by = by
        self._wake.set()

    async def run(self) -> Ending:
        """Deliver until there is a reason to let go; the lease is released behind it."""
        try:
            ending = await self._deliver()
            await self._finish_requests()
            await self._give_back()
            await self._finish_records()
            await self._disable_gone()
            await self._note_blocked()
        finally:
            self._dispatch.give_up()
            self._settling.close()
            self._workload.drop()
            self._parts.recorder.close(self._results)
            await self._keeper.release()
        return Ending.LOST if self._keeper.lost else ending

    # Reading

    async def _deliver(self) -> Ending:
        while True:
            self._wake.clear()
            if ending := await self._ending():
                return ending
            self._forget_stale()
            if not self._should_read():
                await self._sleep()
                # Rows that waited for others may have waited long enough.
                self._send_more()
                continue
            was_busy = self._busy
            try:
                new = await self._read()
            except Exception as error:  # noqa: BLE001  (a destination's trouble stays its own)
                self._log("delivery.read_failed", error=f"{type(error).__name__}: {error}")
                self._schedule.failed(self._loop.time())
                continue
            if not (new or was_busy or self._barred or self._schedule.more or self._bell.unheard):
                return Ending.IDLE
            self._send_more()

    async def _ending(self) -> Ending | None:
        if self._keeper.lost:
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
        # What waits here would have to begin anew elsewhere.
        if not self._settling.suspended and (self.lease.is_suspect or self._parts.crowded()):
            self._yielding = True
            await self._dispatch.wait(YIELD_PATIENCE_SECONDS)
            if not self._dispatch:
                return True
            self._yielding = False
            self._send_more()
        self._tenure_ends_at = self._loop.time() + TENURE_SECONDS
        return False

    @property
    def _busy(self) -> bool:
        return (
            len(self._dispatch) > 0 or len(self._workload) > 0 or len(self._settling.suspended) > 0
        )

    def _should_read(self) -> bool:
        has_room = self._workload.room_bytes > 0 and self._results.backlog < MAX_UNRECORDED
        if not has_room or not self._keeper.sure:
            return False
        is_time = self._loop.time() >= self._schedule.next_at or self._bell.unheard
        if self._schedule.is_low(len(self._workload)):
            return is_time or self._schedule.more
        # What has come may belong in front of what is queued.
        return is_time and self._workload.queue != "fifo"

    def _forget_stale(self) -> None:
        now = self._loop.time()
        if len(self._workload) == 0:
            self._emptied_at = now
        elif now >= self._emptied_at + STALE_SECONDS:
            self._workload.forget_queued()
            self._cursor = Cursor()
            self._emptied_at = self._schedule.next_at = now

    async def _read(self) -> int:
        queue = self._workload.queue
        max_bytes = min(PAGE_BYTES, self._workload.room_bytes)
        self._bell.heard = self._bell.rings
        began_at = self._loop.time()
        destination, page = await self._parts.outbox.read(
            self.lease,
            Selection(
                queue=queue,
                after=self._cursor.begin(began_at),
                known=self._workload.begin_read(self._settling.suspended.parked),
            ),
            max_rows=self._schedule.begin(began_at),
            max_bytes=max_bytes,
            # While rows are waiting here, a message would tell nothing new.
            clear_doorbell=len(self._workload) == 0 or queue != "fifo",
        )
        self._configure(destination)
        await self._note_blocked()
        self._cursor.end(page.fresh)
        new = self._workload.admit(page, full=self._schedule.is_full(page))
        self._schedule.end(page, new=new, max_bytes=max_bytes, now=self._loop.time())
        self.found_work = self.found_work or new > 0
        return new

    def _configure(self, destination: Destination | None) -> None:
        if destination is None or not destination.sends:
            self._settling.disregard()
            self._bar()
        elif destination != self._destination:
            try:
                self._settling.configure(destination)
                self._blocked_because = None
            except TargetUnusable as error:
                self._blocked_because = str(error)
                self._log("destination.unusable", reason=str(error))
                self._bar()
            except ValueError as error:
                self._log("destination.not_carried", reason=str(error))
                self._bar()
            self._throttle.configure(
                Bounds(max=1)
                if self.lease.is_suspect
                else destination.bounds(self._parts.concurrency),
                destination.max_per_second,
                self._loop.time(),
            )
            self._workload.configure(
                queue=destination.queue, ordered=destination.ordered, batch=destination.batching
            )
            self._destination = destination

    def _bar(self) -> None:
        """Nothing more is to be sent; what is in flight may end."""
        self._barred = True
        self._wake.set()

    async def _sleep(self) -> None:
        now = self._loop.time()
        # Behind its time a read waits for room, which wakes us; the pause is for lost wakes.
        until = self._schedule.next_at if self._schedule.next_at > now else now + LINGER_SECONDS
        ready_at = self._workload.ready_at(now)
        if ready_at is not None and ready_at > now:
            until = min(until, ready_at)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()

    # Sending

    def _send_more(self) -> None:
        self._dispatch.start()

    def _waiting(self) -> int:
        if not self._may_send:
            return 0
        now = self._loop.time()
        return (
            self._workload.resumed if self._settling.suspended.full else self._workload.ready(now)
        )

    @property
    def _may_send(self) -> bool:
        return self._stop_by is None and self._keeper.sure and not (self._barred or self._yielding)

    def _take(self) -> Unit | None:
        if not self._may_send:
            return None
        if self._schedule.more and self._schedule.is_low(len(self._workload) - 1):
            self._wake.set()
        return self._workload.take(self._loop.time(), begun=self._settling.suspended.full)

    def _on_change(self) -> None:
        if self._settling.gone_because is not None:
            self._bar()
        self._send_more()

    def _on_drained(self) -> None:
        self._schedule.drained(self._loop.time())
        self._wake.set()

    def _on_recorded(self, results: Sequence[DeliveryResult]) -> None:
        self._workload.recorded([one.key for one in results])
        self._parts.attempts.recorded(results)
        if self._schedule.more:
            self._wake.set()

    # The lease

    def _throttle_state(self) -> ThrottleState:
        state = self._throttle.state(self._loop.time())
        if not self.lease.is_suspect:
            return state
        reason = f"one at a time: {self.lease.lost_leases} holders in a row went silent over it"
        return replace(state, limit=1, reason=reason)

    def _on_renewed(self, destination: Destination | None) -> None:
        self._configure(destination)
        self._send_more()

    def _on_lost(self) -> None:
        self._dispatch.give_up()
        self._wake.set()

    # Letting go

    async def _finish_requests(self) -> None:
        while self._dispatch and not self._keeper.lost:
            if self._stop_by is not None and self._loop.time() >= self._stop_by:
                # Not attempted, as far as anybody will know: the row stays as it is.
                self._dispatch.give_up()
            await self._dispatch.wait(LINGER_SECONDS)

    async def _give_back(self) -> None:
        self._settling.abandon()
        if not self._keeper.lost:
            await self._settling.give_back()

    async def _finish_records(self) -> None:
        """Wait until everything is recorded; without end, unless we must stop or have lost."""
        draining = asyncio.create_task(self._results.drain())
        began_at = self._loop.time()
        while not draining.done():
            await asyncio.wait({draining}, timeout=LINGER_SECONDS)
            waits_since = began_at if self._keeper.lost else self._stop_by
            if waits_since is None or draining.done():
                continue
            if self._loop.time() > waits_since + RECORD_PATIENCE_SECONDS:
                self._log("delivery.results_lost", results=self._results.backlog)
                draining.cancel()

    async def _disable_gone(self) -> None:
        reason = self._settling.gone_because
        if reason is None or self._destination is None:
            return
        self._log("destination.disabled", reason=reason)
        try:
            await self._parts.outbox.disable(self.lease, self._destination.url, reason)
        except Exception as error:  # noqa: BLE001  (the next 410 will try again)
            self._log("destination.disable_failed", error=f"{type(error).__name__}: {error}")

    async def _note_blocked(self) -> None:
        """Write down why nothing can be sent, or that it can again."""
        concerns = self._blocked_because is not None or self.lease.blocked_reason is not None
        if (
            self._destination is None
            or not concerns
            or self._noted_blocked == self._blocked_because
        ):
            return
        try:
            await self._parts.outbox.block(self.lease, self._blocked_because)
            self._noted_blocked = self._blocked_because
        except Exception as error:  # noqa: BLE001  (the next look will try again)
            self._log("destination.block_failed", error=f"{type(error).__name__}: {error}")

    def _log(self, event: str, **facts: object) -> None:
        LOG.warning(event, destination_id=str(self.lease.destination_id), **facts)
