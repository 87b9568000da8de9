"""The pump: one thread with one event loop that delivers to every destination of its process.

``hand_over`` gives it a destination's lease from any thread and returns at once: hundreds of
hanging destinations cost sockets, not threads.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import secrets
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import structlog
import uvloop
from sqlalchemy import Engine

from app.domain.addresses import Network
from app.domain.cloudevents_out import DEFAULT_SOURCE
from app.domain.deliveries import RetryPolicy
from app.domain.errors import DatabaseUnavailable
from app.domain.vault import Vault
from app.settings import Settings
from app.storage.leases import Lease
from worker.attempts import Attempts
from worker.clock import DatabaseClock
from worker.conclusions import Attempting, Conclusions
from worker.connections import SOCKET_SHARE
from worker.holder import Bell, Ending, Holder, HolderParts
from worker.outbox import Doorbell, Outbox
from worker.recorder import Recorder
from worker.sender import Sender
from worker.targets import Targets
from worker.workload import Budget

LOG = structlog.get_logger(__name__)

MEMORY_BYTES = 64 * 1024 * 1024
WANTED_FILES = 65_536
GRACE_SECONDS = 15.0
"""For requests in flight when the process must stop; what is recorded behind it takes a moment."""
STOP_SECONDS = 20.0
EMPTY_ROUNDS = 3
LAG_EVERY_SECONDS = 0.5
LAG_SECONDS = 0.25

Place = tuple[int, uuid.UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpOptions:
    """How a pump delivers.

    Attributes:
        concurrency: requests in flight to one destination, at most, where it says nothing else.
        lease_seconds: how long a destination stays with a process that has gone silent.
        allowed: private networks that destinations may live in.
        memory_bytes: of content, for all destinations, beyond a small floor for each.
        policy: how long to go on.
        vault: decrypts secrets and credentials.
        source: of CloudEvents: who sends.
        clock: of the database that says what is due.
    """

    concurrency: int = 50
    lease_seconds: float = 15.0
    allowed: tuple[Network, ...] = ()
    memory_bytes: int = MEMORY_BYTES
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    vault: Vault = field(default_factory=Vault)
    source: str = DEFAULT_SOURCE
    clock: DatabaseClock = field(default_factory=DatabaseClock)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take what the settings say."""
        return cls(
            concurrency=settings.delivery_concurrency,
            lease_seconds=settings.lease_seconds,
            allowed=settings.destination_allow_cidrs,
            vault=Vault(settings.encryption_keys),
            source=settings.public_url or DEFAULT_SOURCE,
        )


OpenAttempts = Callable[[PumpOptions], AbstractAsyncContextManager[Attempting]]


@asynccontextmanager
async def webhook_attempts(options: PumpOptions) -> AsyncIterator[Attempting]:
    """Open what sends webhooks."""
    conclusions = Conclusions(options.policy, now=options.clock.now)
    async with Sender(options.allowed, now=options.clock.now) as sender:
        yield Attempts(sender, Targets(options.vault, options.source), conclusions)


@dataclass(slots=True)
class _Seat:
    """A destination of this process, from the lease to the last look behind its release."""

    bell: Bell
    holder: Holder | None = None


class Pump:
    """Delivers to the destinations it is handed, on a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        doorbell: Doorbell,
        options: PumpOptions,
        attempting: OpenAttempts = webhook_attempts,
    ) -> None:
        """Keep the parts; nothing runs before ``start``.

        Args:
            engine: its pool must have ``worker.outbox.CONNECTIONS`` to spare.
            doorbell: cleared before idle reads, rung when a destination is passed on.
            options: how to deliver.
            attempting: opens what makes the attempts, on the pump's loop.
        """
        self._attempting = attempting
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.options = options
        self._engine = engine
        self._doorbell = doorbell
        self._lock = threading.Lock()
        self._seats: dict[Place, _Seat] = {}
        self._stopping = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)
        # Set on the thread before `start` returns.
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._parts: HolderParts
        self._stop_by: float | None = None
        self._turned_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # From any thread

    def start(self) -> None:
        """Start the thread; returns when it can be handed leases."""
        self._thread.start()
        self._ready.result(timeout=STOP_SECONDS)

    def stop(self) -> None:
        """Finish or hand back everything; returns after at most ``STOP_SECONDS``."""
        with self._lock:
            self._stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                LOG.error("pump.stop_failed", held=len(self._seats))

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def silent_seconds(self) -> float:
        """Return for how long the loop has not turned; a process whose pump is dead should end."""
        if not self._thread.is_alive():
            return 0.0 if self._stopping or not self._ready.done() else math.inf
        return 0.0 if self._turned_at is None else time.monotonic() - self._turned_at

    @property
    def held(self) -> int:
        """How many destinations are here."""
        return len(self._seats)

    def ring(self, tenant_id: int, destination_id: uuid.UUID) -> bool:
        """Tell the destination's holder that there is something; False when there is none here."""
        with self._lock:
            seat = self._seats.get((tenant_id, destination_id))
            if seat is None:
                return False
            seat.bell.rings += 1
            if seat.holder is not None:
                self._loop.call_soon_threadsafe(seat.holder.wake)
        return True

    def hand_over(self, lease: Lease) -> bool:
        """Take a lease over; False from a pump that is stopping, which leaves it to the caller."""
        seat = _Seat(Bell(rings=1))
        with self._lock:
            if self._stopping:
                return False
            self._seats[lease.tenant_id, lease.destination_id] = seat
            self._loop.call_soon_threadsafe(self._sit, seat, lease)
        return True

    # On the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as error:
            LOG.exception("pump.died")
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        options = self.options
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        outbox = Outbox(
            self._engine,
            self._doorbell,
            lease_seconds=options.lease_seconds,
            clock=options.clock,
        )
        async with self._attempting(options) as attempts:
            self._parts = HolderParts(
                outbox=outbox,
                recorder=Recorder(outbox),
                attempts=attempts,
                memory=Budget(options.memory_bytes),
                sockets=Budget(int(SOCKET_SHARE * raise_file_limit())),
                concurrency=options.concurrency,
                crowded=lambda: len(self._seats) > 1,
            )
            watch = asyncio.create_task(self._watch_lag())
            self._ready.set_result(None)
            await self._stop.wait()
            await self._stop_holders()
            watch.cancel()
        outbox.close()

    async def _stop_holders(self) -> None:
        self._stop_by = self._loop.time() + GRACE_SECONDS
        for seat in self._seats.values():
            if seat.holder is not None:
                seat.holder.stop(self._stop_by)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS - 1)
            for task in late:
                task.cancel()

    def _sit(self, seat: _Seat, lease: Lease) -> None:
        task = asyncio.create_task(self._hold(seat, lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, seat: _Seat, first: Lease) -> None:
        """Hold a destination, lease after lease, until there is nothing to do or another does it.

        Whoever rang while we were about to let go was told that somebody is here, so the look
        behind the release is ours to take.
        """
        lease: Lease | None = first
        empty_rounds = 0
        try:
            while lease is not None:
                seat.holder = holder = Holder(lease, self._parts, seat.bell)
                if self._stop_by is not None:
                    holder.stop(self._stop_by)
                ending = await holder.run()
                seat.holder = None
                empty_rounds = 0 if holder.found_work else empty_rounds + 1
                look = ending is Ending.IDLE and empty_rounds < EMPTY_ROUNDS
                lease = await self._look_again(seat, lease, ending, look=look)
        except DatabaseUnavailable as error:
            LOG.warning("holder.failed", destination_id=str(first.destination_id), error=str(error))
        except Exception:
            LOG.exception("holder.failed", destination_id=str(first.destination_id))
        finally:
            self._leave(seat, first)

    async def _look_again(
        self, seat: _Seat, lease: Lease, ending: Ending, *, look: bool
    ) -> Lease | None:
        outbox = self._parts.outbox
        if ending in {Ending.LOST, Ending.STOPPED} or self._stop_by is not None:
            return None
        if ending is Ending.YIELDED:
            self._leave(seat, lease)
            await outbox.ring(lease)
            return None
        has_due = look and await outbox.has_due(lease.tenant_id, lease.destination_id)
        with self._lock:
            if not has_due and not seat.bell.unheard:
                self._leave_locked(seat, lease)
                return None
        return await outbox.acquire(lease.tenant_id, lease.destination_id, self.name)

    def _leave(self, seat: _Seat, lease: Lease) -> None:
        with self._lock:
            self._leave_locked(seat, lease)

    def _leave_locked(self, seat: _Seat, lease: Lease) -> None:
        place = (lease.tenant_id, lease.destination_id)
        if self._seats.get(place) is seat:
            del self._seats[place]

    async def _watch_lag(self) -> None:
        """Say when the loop is late: everything on it then is."""
        while True:
            began_at = self._loop.time()
            self._turned_at = time.monotonic()
            await asyncio.sleep(LAG_EVERY_SECONDS)
            lag = self._loop.time() - began_at - LAG_EVERY_SECONDS
            if lag > LAG_SECONDS:
                LOG.warning("pump.lagging", seconds=round(lag, 3), held=len(self._seats))


def raise_file_limit() -> int:
    """Let the process open as many files as it may; return how many that is.

    Shells often begin with 1,024, which twenty hanging destinations would use up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        LOG.warning("files.limit_not_raised", limit=soft, error=str(error))
        return soft
    return wanted
